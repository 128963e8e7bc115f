/* SPDX-License-Identifier: Apache-2.0
 *
 * A service plugin as of version 0.1: logs, reads a setting, and publishes an event into the stream
 * that the setting names, as a client. Compiled with the headers beside it. See README.md.
 */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "sluice/client.h"
#include "sluice/plugin.h"

static int service_init(const struct sluice_host *host)
{
	host->log(host->host, SLUICE_LOG_INFO, "abi.init", host->setting(host->host, "stream"));
	return host->setting(host->host, "nothing") == NULL ? 0 : SLUICE_E_INVAL;
}

static void service_fini(void)
{
}

static int publish(const struct sluice_host *host, const char *address, int transport_fd)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	char number[16];
	int rc = config != NULL ? sluice_config_set(config, "address", address) : SLUICE_E_NOMEM;

	(void)snprintf(number, sizeof(number), "%d", transport_fd);
	if (rc == 0 && transport_fd >= 0)
		rc = sluice_config_set(config, "transport_fd", number);
	if (rc == 0)
		rc = sluice_open(config, NULL, NULL, &client);
	if (rc == 0)
		rc = sluice_publish(client,
				    &SLUICE_MESSAGE(.subject = "abi.service",
						    .stream = host->setting(host->host, "stream"),
						    .body = {"from a plugin of 0.1", 20}),
				    &SLUICE_CALL(.deadline_ms = 20000), NULL);
	host->log(host->host, rc == 0 ? SLUICE_LOG_INFO : SLUICE_LOG_ERROR, "abi.published",
		  sluice_error_name(rc));
	(void)sluice_close(client, true, 5000);
	sluice_config_destroy(config);
	return rc;
}

static int service_run(const struct sluice_host *host, const char *address, int transport_fd, int stop_fd)
{
	int rc = publish(host, address, transport_fd);

	if (rc == 0)
		(void)poll(&(struct pollfd){.fd = stop_fd, .events = POLLIN}, 1, -1);
	return rc;
}

static const struct sluice_service_ops ops = {
	.struct_size = sizeof(struct sluice_service_ops),
	.run = service_run,
};

const struct sluice_plugin SLUICE_PLUGIN_SYMBOL = {
	.struct_size = sizeof(struct sluice_plugin),
	.abi_major = SLUICE_PLUGIN_ABI_MAJOR,
	.abi_minor = SLUICE_PLUGIN_ABI_MINOR,
	.kind = SLUICE_PLUGIN_SERVICE,
	.name = "abi",
	.version = "0.1.0",
	.init = service_init,
	.fini = service_fini,
	.ops = &ops,
};
