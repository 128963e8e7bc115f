/* SPDX-License-Identifier: Apache-2.0
 * Gateways: tenants. Their names and numbers are under gateway 0; all other records are under their
 * own gateway. */
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/topo.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/router.h"
#include "protocol/envelope.h"

int gateway_install(struct apply *a, struct sluice_slice name)
{
	Sluice__GatewayCreate definition = SLUICE__GATEWAY_CREATE__INIT;
	struct apply root = *a;
	char text[256];
	int rc;

	root.gateway = 0;
	memcpy(text, name.data, name.len);
	text[name.len] = 0;
	definition.name = text;
	rc = name_put(&root, NAME_GATEWAY, name, a->gateway);
	if (rc == 0)
		rc = topo_put(&root, TOPO_GATEWAY, a->gateway, &definition.base);
	if (rc == 0)
		rc = counter_next(a, COUNTER_INDEX, &a->index);
	if (rc == 0)
		rc = router_install_default(a);
	if (rc == 0)
		rc = queue_install_dead_letter(a);
	if (rc == 0)
		rc = lifecycle_install_default(a);
	return rc;
}

int gateway_create_apply(struct apply *a, const Sluice__GatewayCreate *m, struct outcome *out)
{
	struct sluice_slice name = {m->name, strlen(m->name)};
	struct apply root = *a, made = *a;
	const char *why = NULL;
	uint64_t id;
	int rc = name_check(name, &why);

	if (rc != 0)
		return refuse(out, rc, "gateway name: %s", why);
	rc = name_find(a->txn, 0, NAME_GATEWAY, name, &id);
	if (rc == 0)
		return refuse(out, SLUICE_E_EXISTS, "gateway '%.200s' exists", m->name);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	root.gateway = 0;
	rc = counter_next(&root, COUNTER_GATEWAY, &id);
	if (rc != 0)
		return rc;
	made.gateway = (uint32_t)id;
	return gateway_install(&made, name);
}
