/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection to the broker, for the commands that need one.
 */
#include "cli.h"

/* A command that runs for long reports when it waits for the broker. On the library's thread. */
static void on_notice(sluice_client *client, const sluice_notice *event, void *user)
{
	struct cli *cli = user;

	(void)client;
	if (event->kind == SLUICE_NOTICE_DISCONNECTED && event->code != 0 && cli->connected)
		notice(cli, "the connection to %s is lost (%s); trying again", cli->address,
		       event->text);
	else if (event->kind == SLUICE_NOTICE_RESUMED)
		notice(cli, "connected to %s again", cli->address);
	else if (event->kind == SLUICE_NOTICE_SESSION_LOST)
		notice(cli,
		       "connected to %s again, but the session had ended: claimed items "
		       "are returned",
		       cli->address);
	cli->connected = cli->connected || event->kind == SLUICE_NOTICE_CONNECTED;
}

int need(struct cli *cli)
{
	sluice_config *config = sluice_config_create();
	char deadline[24];
	int rc;

	if (config == NULL)
		return SLUICE_E_NOMEM;
	rc = sluice_config_set(config, "address", cli->address);
	if (rc == 0)
		rc = sluice_config_set(config, "gateway", cli->gateway);
	if (rc == 0)
		rc = sluice_config_set(config, "tls", cli->tls);
	if (rc == 0)
		rc = sluice_config_set(config, "tls_ca", cli->tls_ca);
	if (rc == 0)
		rc = sluice_config_set(config, "client", "sluice CLI");
	(void)snprintf(deadline, sizeof(deadline), "%d", cli->timeout_ms);
	if (rc == 0)
		rc = sluice_config_set(config, "deadline_ms", deadline);
	if (rc != 0) {
		(void)report_error(cli, rc, "%s", sluice_last_error(NULL));
		sluice_config_destroy(config);
		return rc;
	}
	rc = sluice_open(config, on_notice, cli, &cli->client);
	sluice_config_destroy(config);
	if (rc == 0)
		rc = sluice_wait_connected(cli->client, cli->timeout_ms);
	if (rc == SLUICE_E_DISCONNECTED)
		return report_error(cli, rc,
				    "no broker at %s (%s); is it running? --address or "
				    "SLUICE_ADDRESS "
				    "selects another",
				    cli->address, sluice_last_error(cli->client));
	if (rc != 0) {
		const char *why = cli->client != NULL ? sluice_last_error(cli->client) : "";

		return report_error(cli, rc, "%s: %s (%s)", cli->address,
				    why[0] != 0 ? why : sluice_error_text(rc),
				    sluice_error_name(rc));
	}
	if (cli->verbose)
		notice(cli, "connected to %s, session %llu", cli->address,
		       (unsigned long long)sluice_session_id(cli->client));
	return 0;
}
