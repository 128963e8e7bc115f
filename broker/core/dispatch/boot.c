/* SPDX-License-Identifier: Apache-2.0
 *
 * BOOT and LEVEL_RAISE: commands of the store, not of a gateway. Whoever applies a store's commands
 * from the first one on has the same store: nothing is written beside them, neither at a start nor
 * when a store is made.
 */
#include "broker/core/base/counter.h"
#include "broker/core/base/meta.h"
#include "broker/core/base/state.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/queue/queue.h"

/* Gateway "default" (number 1). The format comes last: with it the store is complete. */
static int store_begin_first(struct apply *a)
{
	struct apply root = *a, made = *a;
	uint8_t format[FORMAT_BYTES];
	uint64_t gateway;
	int rc;

	root.gateway = 0;
	format_encode(format, FORMAT_VERSION);
	rc = counter_next(&root, COUNTER_GATEWAY, &gateway);
	if (rc != 0)
		return rc;
	made.gateway = (uint32_t)gateway;
	rc = gateway_install(&made, (struct sluice_slice){"default", 7});
	return rc != 0 ? rc
		       : store_put(a->txn, STORE_META, format_key(),
				   (struct sluice_slice){format, sizeof(format)});
}

int boot_apply(struct apply *a, const struct cmd_boot *m, struct outcome *out)
{
	struct sluice_slice value;
	int rc = core_store_check(a->txn);

	(void)out;
	if (rc == 0)
		rc = age_boot(a, m);
	if (rc != 0)
		return rc;
	rc = store_get(a->txn, STORE_META, format_key(), &value);
	if (rc == SLUICE_E_NOT_FOUND)
		rc = store_begin_first(a);
	/* Sessions need nothing: the engine keeps their timers, which start anew. */
	return rc != 0 ? rc : queue_boot(a);
}

int level_raise_apply(struct apply *a, const Sluice__LevelRaise *m, struct outcome *out)
{
	uint8_t buf[LEVEL_BYTES];
	int rc;

	/* The engine refuses it before it enters a batch, because a newer version would apply it.
	 * In a journal of a newer version it ends the replay. */
	if (m->level > CORE_LEVEL)
		return SLUICE_E_SCHEMA;
	if (m->level < a->core->level)
		return refuse(out, SLUICE_E_CONFLICT, "the level is %u already, and never sinks",
			      a->core->level);
	level_encode(buf, m->level);
	rc = store_put(a->txn, STORE_META, level_key(), (struct sluice_slice){buf, sizeof(buf)});
	if (rc == 0)
		a->core->level = m->level; /* an abort reads it anew */
	return rc;
}
