/* SPDX-License-Identifier: Apache-2.0
 * See shadow.h. */
#include "broker/core/base/state.h"
#include "tests/sim/shadow.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

enum { COMMANDS_MAX = 4096 };

static struct {
	bool on, replays; /* replays: the shadow's own core runs */
	struct store *store;
	struct core *core;
	struct effects *effects;
	/* The current transaction. */
	bool batch;
	struct batch_clock clock;
	size_t count;
	struct sluice_slice commands[COMMANDS_MAX]; /* encoded, owned */
	uint64_t written[COMMANDS_MAX];		    /* a digest of what each wrote */
	bool applies;				    /* a command */
	uint64_t digest;			    /* of the writes of the command at hand */
	uint64_t damaged;
	bool differs;
	uint64_t differs_type, differs_damaged;
} shadow;

static bool listens(void)
{
	return shadow.on && !shadow.replays && !shadow.differs;
}

static void mix(const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		shadow.digest = (shadow.digest ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
}

/* How many batches there are decides how often the ages are written. */
static bool is_age(enum store_table table, struct sluice_slice key)
{
	return table == STORE_META && key.len == 3 && memcmp(key.data, "age", 3) == 0;
}

void shadow_wrote(char operation, enum store_table table, struct sluice_slice key,
		  struct sluice_slice value)
{
	if (!shadow.applies || is_age(table, key))
		return;
	mix(&operation, 1);
	mix(&table, sizeof(table));
	mix(key.data, key.len);
	mix(value.data, value.len);
}

static int applied(struct core *core, struct store_txn *txn, const struct command *command,
		   struct effects *effects);

static void drop(void)
{
	while (shadow.count > 0)
		free((void *)shadow.commands[--shadow.count].data);
	shadow.batch = false;
}

void shadow_begin(void)
{
	struct store_options options = {.create = true};

	must(store_open_mem(&options, &shadow.store), "shadow");
	must(core_create(&shadow.core), "shadow");
	must(effects_create(&shadow.effects), "shadow");
	shadow.on = true;
}

void shadow_end(void)
{
	drop();
	core_destroy(shadow.core);
	effects_destroy(shadow.effects);
	store_close(shadow.store);
	memset(&shadow, 0, sizeof(shadow));
}

/* ---- actions of the engine ---- */

WRAP(int, core_batch_begin, struct core *core, struct store_txn *txn, struct batch_clock clock)
{
	if (listens()) {
		drop();
		shadow.batch = true;
		shadow.damaged = 0;
		shadow.clock = clock;
	}
	return __real_core_batch_begin(core, txn, clock);
}

WRAP(void, core_batch_abort, struct core *core)
{
	if (listens())
		drop();
	__real_core_batch_abort(core);
}

WRAP(int, core_apply, struct core *core, struct store_txn *txn, const struct command *command,
     struct effects *effects)
{
	int rc;

	if (listens()) {
		uint8_t *bytes = malloc(command_size(command));

		must(bytes == NULL || shadow.count == COMMANDS_MAX ? SLUICE_E_NOMEM : 0, "shadow");
		shadow.commands[shadow.count++] =
			(struct sluice_slice){bytes, command_encode(bytes, command)};
	}
	rc = applied(core, txn, command, effects);
	if (listens())
		shadow.written[shadow.count - 1] = shadow.digest;
	return rc;
}

/* The command, and in shadow.digest what it wrote. */
static int applied(struct core *core, struct store_txn *txn, const struct command *command,
		   struct effects *effects)
{
	int rc;

	shadow.digest = 14695981039346656037u;
	shadow.applies = true;
	rc = __real_core_apply(core, txn, command, effects);
	shadow.applies = false;
	return rc;
}

/* ---- replay ---- */

static void apply(struct store_txn *txn, size_t at)
{
	struct command *command;
	const char *why = "";

	must(command_decode(shadow.commands[at], &command, &why), why);
	must(core_apply(shadow.core, txn, command, shadow.effects), "shadow");
	if (shadow.digest != shadow.written[at]) {
		shadow.differs = true;
		shadow.differs_type = command->type;
		shadow.differs_damaged = shadow.damaged;
	}
	command_free(command);
}

static void replay(void)
{
	struct store_txn *txn;

	must(store_begin(shadow.store, &txn), "shadow");
	must(core_batch_begin(shadow.core, txn, shadow.clock), "shadow");
	for (size_t i = 0; i < shadow.count && !shadow.differs; i++) {
		if (i > 0) {
			must(core_batch_end(shadow.core, txn, shadow.effects), "shadow");
			must(core_batch_begin(shadow.core, txn, shadow.clock), "shadow");
		}
		apply(txn, i);
	}
	must(core_batch_end(shadow.core, txn, shadow.effects), "shadow");
	effects_clear(shadow.effects);
	must(store_commit(txn), "shadow");
}

void shadow_commits(uint64_t damaged)
{
	if (listens())
		shadow.damaged = damaged;
}

bool shadow_differs(uint64_t *ret_type, uint64_t *ret_damaged)
{
	*ret_type = shadow.differs_type;
	*ret_damaged = shadow.differs_damaged;
	return shadow.differs;
}

void shadow_committed(void)
{
	if (!listens() || !shadow.batch)
		return;
	shadow.replays = true;
	replay();
	shadow.replays = false;
	drop();
}

struct store *shadow_store(void)
{
	return shadow.store;
}

bool shadow_replays(void)
{
	return shadow.replays;
}

void shadow_pause(bool paused)
{
	shadow.replays = paused;
}

/* ---- digest ---- */

/* One store has a schema record, the other has none. */
static bool is_schema(enum store_table table, struct sluice_slice key)
{
	static const char name[] = "store_schema";

	return table == STORE_META && key.len == sizeof(name) - 1 &&
	       memcmp(key.data, name, key.len) == 0;
}

static int digest_record(void *user, enum store_table table, struct sluice_slice key,
			 struct sluice_slice value, int code)
{
	const struct sluice_slice parts[] = {key, core_record_data(table, key, value)};
	uint64_t *hash = user;

	if (code != 0 || is_schema(table, key))
		return code;
	*hash = (*hash ^ (uint64_t)table) * 1099511628211u;
	for (size_t i = 0; i < 2; i++) {
		for (size_t at = 0; at < parts[i].len; at++)
			*hash = (*hash ^ ((const uint8_t *)parts[i].data)[at]) * 1099511628211u;
	}
	return 0;
}

uint64_t shadow_digest(struct store *store)
{
	uint64_t hash = 14695981039346656037u;
	struct store_txn *txn;

	must(store_begin_read(store != NULL ? store : shadow.store, &txn), "read");
	must(store_walk(txn, digest_record, &hash), "walk");
	store_abort(txn);
	return hash;
}
