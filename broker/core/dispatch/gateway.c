/* SPDX-License-Identifier: Apache-2.0
 * Gateways: tenants. Their names and numbers are under gateway 0; all other records are under their
 * own gateway. */
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/base/topo.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/router.h"
#include "broker/util/invariant.h"
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

/* The number that was asked for. Numbers of several stores may come from one list, so that a
 * gateway can move: its number is in each of its keys. Numbers that follow are above it. */
static int number_take(struct apply *root, uint32_t number, struct outcome *out)
{
	uint64_t last, index;
	int rc;

	if (!level_is(root, 1))
		return refuse(out, SLUICE_E_UNSUPPORTED,
			      "a number needs level 1, and the level is %u", root->core->level);
	if (number > LIMIT_GATEWAY_NUMBER_MAX)
		return refuse(out, SLUICE_E_LIMIT, "gateway number %u; the largest is %llu", number,
			      ULL(LIMIT_GATEWAY_NUMBER_MAX));
	rc = counter_get(root->txn, number, COUNTER_INDEX, &index);
	if (rc == 0 && index > 0)
		return refuse(out, SLUICE_E_EXISTS, "gateway number %u is taken", number);
	if (rc == 0)
		rc = counter_get(root->txn, 0, COUNTER_GATEWAY, &last);
	return rc == 0 && last < number ? counter_set(root, COUNTER_GATEWAY, number) : rc;
}

static int number_next(struct apply *root, uint32_t *ret, struct outcome *out)
{
	uint64_t last;
	int rc = counter_get(root->txn, 0, COUNTER_GATEWAY, &last);

	if (rc == 0 && last >= LIMIT_GATEWAY_NUMBER_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "gateway number %llu is taken; a number must be given",
			      ULL(LIMIT_GATEWAY_NUMBER_MAX));
	*ret = (uint32_t)last + 1;
	return rc != 0 ? rc : counter_set(root, COUNTER_GATEWAY, *ret);
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
	made.gateway = m->number;
	rc = m->number != 0 ? number_take(&root, m->number, out)
			    : number_next(&root, &made.gateway, out);
	return rc != 0 || refused(out) ? rc : gateway_install(&made, name);
}
