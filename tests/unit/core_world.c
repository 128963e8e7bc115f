/* SPDX-License-Identifier: Apache-2.0
 * See core_world.h. */
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "tests/unit/core_world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/util/crc.h"
#include "protocol/envelope.h"

#define MUST(call)                                                                           \
	do {                                                                                 \
		int must_err = (call);                                                       \
		cr_assert_eq(must_err, 0, "%s: %s (%s)", #call, sluice_error_name(must_err), \
			     store_last_error());                                            \
	} while (0)

enum { OTHER_BATCH = 7 };

struct world_step {
	struct batch_clock clock;
	struct command *command; /* owned; NULL: a restart */
};

/* ---- stores ---- */

static struct store *open_store(enum world_store kind, char *dir, bool fresh)
{
	struct store_options options = {.map_bytes = 256u << 20, .create = true};
	struct store *store = NULL;
	const char *why = "";

	if (kind == WORLD_MEM) {
		MUST(store_open_mem(&options, &store));
		return store;
	}
	if (fresh) {
		strcpy(dir, "/tmp/sluice-core-XXXXXX");
		cr_assert_not_null(mkdtemp(dir));
	}
	MUST(store_open_lmdb(dir, &options, &store, &why));
	return store;
}

static void remove_dir(const char *dir)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	cr_assert_eq(system(command), 0);
}

/* Of a start. The clocks are those of the batch. */
static const struct cmd_boot boot_body = {.offset_ms = 0};
static const struct command boot_command = {.type = COMMAND_BOOT, .body = &boot_body};

static void boot(struct store *store, struct core *core, struct batch_clock clock)
{
	struct effects *effects;
	struct store_txn *txn;

	MUST(effects_create(&effects));
	MUST(store_begin(store, &txn));
	MUST(core_batch_begin(core, txn, clock));
	MUST(core_apply(core, txn, &boot_command, effects));
	MUST(core_batch_end(core, txn, effects));
	MUST(store_commit(txn));
	effects_destroy(effects);
}

static void level_raise(struct store *store, struct core *core, struct batch_clock clock,
			uint32_t level)
{
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;
	struct command command = {.type = COMMAND_LEVEL_RAISE,
				  .gateway = 1,
				  .message = &raise.base};
	struct effects *effects;
	struct store_txn *txn;

	raise.level = level;
	MUST(effects_create(&effects));
	MUST(store_begin(store, &txn));
	MUST(core_batch_begin(core, txn, clock));
	MUST(core_apply(core, txn, &command, effects));
	MUST(core_batch_end(core, txn, effects));
	MUST(store_commit(txn));
	effects_destroy(effects);
}

/* As the engine does it when it takes the lead. */
static void begin(struct store *store, struct core *core, struct batch_clock clock, uint32_t level)
{
	boot(store, core, clock);
	if (level > 0)
		level_raise(store, core, clock, level);
}

/* The lmdb store's own. */
static bool is_store_mark(struct sluice_slice key)
{
	return key.len == 12 && memcmp(key.data, "store_schema", 12) == 0;
}

/* Every record of every table, in order: table, key, value. */
static uint32_t dump(struct store *store, const char *name)
{
	char path[96];
	FILE *file = NULL;
	struct store_txn *txn;
	uint32_t crc = 0;

	if (name != NULL) {
		snprintf(path, sizeof(path), "/tmp/sluice-core-%d-%s.dump", (int)getpid(), name);
		file = fopen(path, "w");
	}
	MUST(store_begin_read(store, &txn));
	for (int table = 0; table < STORE_TABLE_COUNT; table++) {
		struct sluice_slice key, value;
		struct store_scan *scan;

		MUST(store_scan_begin(txn, (enum store_table)table, (struct sluice_slice){"", 0},
				      &scan));
		while (store_scan_next(scan, &key, &value) == 0) {
			if (is_store_mark(key))
				continue;
			value = core_record_data((enum store_table)table, key, value);
			crc = crc32c_extend(crc, &table, sizeof(table));
			crc = crc32c_extend(crc, &key.len, sizeof(key.len));
			crc = crc32c_extend(crc, key.data, key.len);
			crc = crc32c_extend(crc, value.data, value.len);
			if (file == NULL)
				continue;
			fprintf(file, "%s ", store_table_name((enum store_table)table));
			for (size_t i = 0; i < key.len; i++)
				fprintf(file, "%02x", ((const uint8_t *)key.data)[i]);
			fputc(' ', file);
			for (size_t i = 0; i < value.len; i++)
				fprintf(file, "%02x", ((const uint8_t *)value.data)[i]);
			fputc('\n', file);
		}
		store_scan_end(scan);
	}
	store_abort(txn);
	if (file != NULL)
		fclose(file);
	return crc;
}

uint32_t world_digest(struct store *store)
{
	return dump(store, NULL);
}

/* ---- kinds of records ---- */

#define IS_OF_LAYOUT(layout)                                 \
	static bool is_##layout(struct sluice_slice key)     \
	{                                                    \
		struct layout##_key decoded;                 \
                                                             \
		return key_##layout##_decode(key, &decoded); \
	}
IS_OF_LAYOUT(one)
IS_OF_LAYOUT(two)
IS_OF_LAYOUT(hot)
IS_OF_LAYOUT(hot_cursor)
IS_OF_LAYOUT(name)
IS_OF_LAYOUT(topo)
IS_OF_LAYOUT(ready)
IS_OF_LAYOUT(timer)
IS_OF_LAYOUT(owned)
IS_OF_LAYOUT(orphan)

static bool is_name_of(struct sluice_slice key, enum name_kind kind)
{
	struct name_key name;

	return key_name_decode(key, &name) && name.kind == kind;
}
static bool is_cursor_name(struct sluice_slice key)
{
	return is_name_of(key, NAME_CURSOR);
}
static bool is_edge_name(struct sluice_slice key)
{
	return is_name_of(key, NAME_EDGE);
}

static bool has_kind(struct sluice_slice key, uint8_t kind)
{
	return key.len > KEY_GATEWAY_BYTES &&
	       ((const uint8_t *)key.data)[KEY_GATEWAY_BYTES] == kind;
}

/* Whether records.def has a kind with this table and layout: then there are golden bytes for it. */
static bool is_known(enum store_table table, struct sluice_slice key)
{
#define META(name, text, formats, what)                       \
	if (table == STORE_META && key.len == strlen(text) && \
	    memcmp(key.data, text, key.len) == 0)             \
		return true;
#define HOT(NAME, number, name, layout, formats, text)                       \
	if (table == STORE_HOT && is_##layout(key) && has_kind(key, number)) \
		return true;
#define TOPO(NAME, number, name, message, text)                           \
	if (table == STORE_TOPO && is_topo(key) && has_kind(key, number)) \
		return true;
#define RECORD(name, TABLE, layout, formats, text)      \
	if (table == STORE_##TABLE && is_##layout(key)) \
		return true;
#include "broker/core/records.def"
#undef META
#undef HOT
#undef TOPO
#undef RECORD
	return false;
}

static void check_kinds(struct store *store)
{
	struct store_txn *txn;

	MUST(store_begin_read(store, &txn));
	for (int table = 0; table < STORE_TABLE_COUNT; table++) {
		struct sluice_slice key, value;
		struct store_scan *scan;

		MUST(store_scan_begin(txn, (enum store_table)table, (struct sluice_slice){"", 0},
				      &scan));
		while (store_scan_next(scan, &key, &value) == 0)
			cr_assert(is_known((enum store_table)table, key) || is_store_mark(key),
				  "a record of table %s with a key of %zu bytes is of no kind in "
				  "records.def",
				  store_table_name((enum store_table)table), key.len);
		store_scan_end(scan);
	}
	store_abort(txn);
}

/* ---- the record and its replays ---- */

static void record(struct world *world, const struct command *command)
{
	struct world_step *step;

	if (world->step_count == world->step_capacity) {
		world->step_capacity = world->step_capacity == 0 ? 64 : world->step_capacity * 2;
		world->steps = realloc(world->steps, world->step_capacity * sizeof(*world->steps));
		cr_assert_not_null(world->steps);
	}
	step = &world->steps[world->step_count++];
	*step = (struct world_step){.clock = world->clock};
	if (command != NULL)
		MUST(command_copy(command, &step->command));
}

/* As in a command log: decoding and encoding again gives the same bytes. */
static void check_encoding(const struct command *command)
{
	size_t bytes = command_size(command);
	uint8_t *first = malloc(bytes), *second = malloc(bytes);
	struct command *decoded = NULL;
	const char *why = "";

	cr_assert(first != NULL && second != NULL);
	cr_assert_eq(command_encode(first, command), bytes);
	cr_assert_eq(command_decode((struct sluice_slice){first, bytes}, &decoded, &why), 0,
		     "%s: %s", command_spec(command->type)->name, why);
	cr_assert_eq(command_size(decoded), bytes);
	cr_assert_eq(command_encode(second, decoded), bytes);
	cr_assert_eq(memcmp(first, second, bytes), 0, "%s has two encodings",
		     command_spec(command->type)->name);
	command_free(decoded);
	free(first);
	free(second);
}

struct replay {
	enum world_store kind;
	size_t batch;	  /* commands at most */
	bool abort_first; /* each batch is applied, aborted and applied again */
};

static size_t batch_length(const struct world *world, size_t from, size_t max)
{
	size_t count = 1;

	while (count < max && from + count < world->step_count &&
	       world->steps[from + count].command != NULL &&
	       world->steps[from + count].clock.mono_ms == world->steps[from].clock.mono_ms)
		count++;
	return count;
}

static void apply_batch(struct store *store, struct core *core, struct effects *effects,
			const struct world_step *steps, size_t count, bool commit)
{
	struct store_txn *txn;

	effects_clear(effects);
	MUST(store_begin(store, &txn));
	MUST(core_batch_begin(core, txn, steps[0].clock));
	for (size_t i = 0; i < count; i++)
		MUST(core_apply(core, txn, steps[i].command, effects));
	MUST(core_batch_end(core, txn, effects));
	if (commit) {
		MUST(store_commit(txn));
	} else {
		store_abort(txn);
		core_batch_abort(core);
	}
}

static void check_replay(const struct world *world, const struct replay *replay, uint32_t expected)
{
	char dir[64] = "";
	struct store *store = open_store(replay->kind, dir, true);
	struct effects *effects;
	struct core *core;
	size_t length;

	MUST(core_create(&core));
	MUST(effects_create(&effects));
	begin(store, core, (struct batch_clock){1000, 1700000000000}, world->level);
	for (size_t at = 0; at < world->step_count; at += length) {
		const struct world_step *step = &world->steps[at];

		length = step->command == NULL ? 1 : batch_length(world, at, replay->batch);
		if (step->command == NULL) {
			core_destroy(core);
			MUST(core_create(&core));
			boot(store, core, step->clock);
			continue;
		}
		if (replay->abort_first)
			apply_batch(store, core, effects, step, length, false);
		apply_batch(store, core, effects, step, length, true);
	}
	if (dump(store, NULL) != expected) {
		dump(world->store, "expected");
		dump(store, "replayed");
		cr_assert_fail("%zu commands gave another database in batches of %zu (%s, %s): "
			       "diff /tmp/sluice-core-PID-*.dump",
			       world->step_count, replay->batch,
			       replay->abort_first ? "aborted first" : "not aborted",
			       replay->kind == WORLD_MEM ? "mem" : "lmdb");
	}
	effects_destroy(effects);
	core_destroy(core);
	store_close(store);
	if (replay->kind == WORLD_LMDB)
		remove_dir(dir);
}

/* ---- journals ---- */

enum { JOURNAL_BYTES_MAX = 131072 }; /* of commands: longer worlds are left out */

static size_t journal_bytes(const struct world *world)
{
	size_t bytes = 0;

	for (size_t i = 0; i < world->step_count; i++) {
		if (world->steps[i].command != NULL)
			bytes += command_size(world->steps[i].command);
	}
	return bytes;
}

static void journal_command(FILE *file, struct batch_clock clock, const struct command *command)
{
	static uint8_t bytes[JOURNAL_BYTES_MAX + 64];
	size_t len = command_encode(bytes, command);

	cr_assert_leq(len, sizeof(bytes));
	fprintf(file, "batch %llu %llu\n", (unsigned long long)clock.mono_ms,
		(unsigned long long)clock.wall_ms);
	for (size_t i = 0; i < len; i++)
		fprintf(file, "%02x", bytes[i]);
	fputc('\n', file);
}

static void journal_write(const struct world *world, uint32_t digest)
{
	const struct batch_clock first = {1000, 1700000000000};
	const char *path = getenv("SLUICE_JOURNAL");
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;
	struct command level = {.type = COMMAND_LEVEL_RAISE, .gateway = 1, .message = &raise.base};
	FILE *file;

	if (path == NULL || journal_bytes(world) > JOURNAL_BYTES_MAX)
		return;
	file = fopen(path, "a");
	cr_assert_not_null(file);
	fputs("begin\n", file);
	journal_command(file, first, &boot_command);
	raise.level = world->level;
	if (world->level > 0)
		journal_command(file, first, &level);
	for (size_t i = 0; i < world->step_count; i++)
		journal_command(file, world->steps[i].clock,
				world->steps[i].command != NULL ? world->steps[i].command
								: &boot_command);
	fprintf(file, "digest %08x\n", digest);
	cr_assert_eq(fclose(file), 0);
}

/* ---- life ---- */

void world_open(struct world *world, enum world_store kind)
{
	world_open_at(world, kind, CORE_LEVEL);
}

void world_open_at(struct world *world, enum world_store kind, uint32_t level)
{
	struct store_txn *txn;

	memset(world, 0, sizeof(*world));
	world->kind = kind;
	world->clock = (struct batch_clock){1000, 1700000000000};
	world->store = open_store(kind, world->dir, true);
	MUST(core_create(&world->core));
	MUST(effects_create(&world->effects));
	world->level = level;
	begin(world->store, world->core, world->clock, level);
	MUST(store_begin_read(world->store, &txn));
	MUST(core_gateway_find(txn, world_text("default"), &world->gateway));
	store_abort(txn);
}

void world_close(struct world *world)
{
	const struct replay replays[] = {
		{WORLD_MEM, 1, true},
		{WORLD_MEM, OTHER_BATCH, true},
		{WORLD_MEM, SIZE_MAX, false},
		{world->kind == WORLD_MEM ? WORLD_LMDB : WORLD_MEM, SIZE_MAX, true},
	};
	uint32_t expected = dump(world->store, NULL);

	check_kinds(world->store);
	for (size_t i = 0; i < world->step_count; i++) {
		if (world->steps[i].command != NULL)
			check_encoding(world->steps[i].command);
	}
	for (size_t i = 0; i < sizeof(replays) / sizeof(replays[0]); i++)
		check_replay(world, &replays[i], expected);
	journal_write(world, expected);
	world_discard(world);
}

void world_discard(struct world *world)
{
	for (size_t i = 0; i < world->step_count; i++)
		command_free(world->steps[i].command);
	free(world->steps);
	sluice__reply__free_unpacked(world->reply, NULL);
	effects_destroy(world->effects);
	core_destroy(world->core);
	store_close(world->store);
	if (world->kind == WORLD_LMDB)
		remove_dir(world->dir);
}

void world_restart(struct world *world)
{
	core_destroy(world->core);
	if (world->kind == WORLD_LMDB) {
		store_close(world->store);
		world->store = open_store(WORLD_LMDB, world->dir, false);
	}
	MUST(core_create(&world->core));
	boot(world->store, world->core, world->clock);
	record(world, NULL);
}

void world_wait(struct world *world, uint64_t ms)
{
	world->clock.mono_ms += ms;
	world->clock.wall_ms += ms;
}

size_t world_ticks(struct world *world, uint32_t work_max)
{
	struct cmd_tick tick = {.work_max = work_max};

	for (size_t n = 0; n < 100000; n++) {
		struct store_txn *txn;
		uint64_t due;

		MUST(store_begin(world->store, &txn));
		MUST(core_next_deadline(world->core, txn, &due));
		store_abort(txn);
		if (due > world->clock.mono_ms)
			return n;
		(void)world_apply(world, COMMAND_TICK, 0, &tick);
	}
	cr_assert_fail("timers are still due");
	return 0;
}

struct outcome world_apply(struct world *world, uint16_t type, uint64_t session, const void *body)
{
	struct command command = {.type = type,
				  .gateway = world->gateway,
				  .session = session,
				  .random = world->step_count + 1};
	struct world_step step = {.clock = world->clock, .command = &command};
	struct outcome out = {.code = 1};
	size_t replies = 0;

	command.body = body; /* the union's members are pointers both */
	record(world, &command);
	apply_batch(world->store, world->core, world->effects, &step, 1, true);
	for (size_t i = 0; i < effects_count(world->effects); i++) {
		const struct effect *effect = effects_at(world->effects, i);

		if (effect->kind != FX_REPLY)
			continue;
		out = *effect->outcome;
		replies++;
	}
	cr_assert_eq(replies, type == COMMAND_TICK ? 0 : 1, "a command has one answer");
	return out;
}

struct outcome world_try(struct world *world, uint16_t type, const void *body)
{
	struct command command = {.type = type, .gateway = world->gateway, .random = 1};
	struct world_step step = {.clock = world->clock, .command = &command};

	command.body = body;
	apply_batch(world->store, world->core, world->effects, &step, 1, false);
	cr_assert_eq(world_effects(world, FX_REPLY), 1);
	return *world_effect(world, FX_REPLY)->outcome;
}

struct outcome world_must(struct world *world, uint16_t type, uint64_t session, const void *body)
{
	struct outcome out = world_apply(world, type, session, body);

	cr_assert_eq(out.code, 0, "%s: %s: %s", command_spec(type)->name,
		     sluice_error_name(out.code), out.text);
	return out;
}

/* Every query has the same answer when it is read one record at a time, each from a snapshot of its
 * own. */
static void query_in_turns(struct world *world, const Sluice__Request *request,
			   struct sluice_slice expected)
{
	struct query_clock clock = {world->clock.mono_ms, world->clock.wall_ms};
	struct core_read *read;
	uint8_t *packed = NULL;
	size_t bytes = 0;
	bool done = false;

	MUST(core_read_begin(world->gateway, request, &read));
	while (!done) {
		struct store_txn *txn;

		MUST(store_begin_read(world->store, &txn));
		MUST(core_read_turn(read, txn, clock, 1, &done, &packed, &bytes));
		store_abort(txn);
		world->turns++;
	}
	core_read_end(read);
	cr_assert_eq(bytes, expected.len, "read in turns the answer has %zu bytes instead of %zu",
		     bytes, expected.len);
	cr_assert_eq(memcmp(packed, expected.data, bytes), 0,
		     "read in turns the answer has other bytes");
	free(packed);
}

const Sluice__Reply *world_query(struct world *world, const Sluice__Request *request)
{
	struct query_clock clock = {world->clock.mono_ms, world->clock.wall_ms};
	struct store_txn *txn;
	uint8_t *packed = NULL;
	size_t bytes = 0;

	cr_assert(core_request_is_query(request));
	MUST(store_begin_read(world->store, &txn));
	MUST(core_query(txn, world->gateway, clock, request, &packed, &bytes));
	store_abort(txn);
	query_in_turns(world, request, (struct sluice_slice){packed, bytes});
	sluice__reply__free_unpacked(world->reply, NULL);
	world->reply = sluice__reply__unpack(NULL, bytes, packed);
	cr_assert_not_null(world->reply);
	free(packed);
	return world->reply;
}

size_t world_effects(const struct world *world, enum effect_kind kind)
{
	size_t count = 0;

	for (size_t i = 0; i < effects_count(world->effects); i++)
		count += effects_at(world->effects, i)->kind == kind;
	return count;
}

const struct effect *world_effect(const struct world *world, enum effect_kind kind)
{
	for (size_t i = 0; i < effects_count(world->effects); i++) {
		if (effects_at(world->effects, i)->kind == kind)
			return effects_at(world->effects, i);
	}
	return NULL;
}

/* ---- shorthands ---- */

uint64_t world_session(struct world *world, const char *name)
{
	struct cmd_session_open open = {.name = world_text(name),
					.client = world_text("test"),
					.timeout_ms = 30000};

	memset(open.secret, 7, sizeof(open.secret));
	return world_must(world, COMMAND_SESSION_OPEN, 0, &open).id;
}

struct outcome world_stream(struct world *world, const char *name, const char *pattern,
			    uint64_t max_events, uint64_t max_bytes, uint64_t max_age_ms)
{
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;
	char *subjects[] = {(char *)(uintptr_t)pattern};

	config.name = (char *)(uintptr_t)name;
	config.n_subjects = pattern != NULL ? 1 : 0;
	config.subjects = subjects;
	config.max_events = max_events;
	config.max_bytes = max_bytes;
	config.max_age_ms = max_age_ms;
	create.config = &config;
	return world_apply(world, COMMAND_STREAM_CREATE, 0, &create);
}

struct outcome world_queue(struct world *world, const char *name, const char *pattern,
			   uint64_t max_items)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	char *subjects[] = {(char *)(uintptr_t)pattern};

	config.name = (char *)(uintptr_t)name;
	config.n_subjects = pattern != NULL ? 1 : 0;
	config.subjects = subjects;
	config.max_items = max_items;
	create.config = &config;
	return world_apply(world, COMMAND_QUEUE_CREATE, 0, &create);
}

struct outcome world_bind(struct world *world, const char *router, const char *pattern,
			  uint32_t target_kind, const char *target)
{
	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterBind bind = SLUICE__ROUTER_BIND__INIT;

	edge.router = (char *)(uintptr_t)router;
	edge.pattern = (char *)(uintptr_t)pattern;
	edge.target_kind = (Sluice__TargetKind)target_kind;
	edge.target = (char *)(uintptr_t)target;
	bind.edge = &edge;
	return world_apply(world, COMMAND_ROUTER_BIND, 0, &bind);
}

void world_batch_add(struct world_batch *batch, const char *subject, const char *body,
		     int64_t time_delta_ms)
{
	struct envelope envelope = {.time_delta_ms = time_delta_ms,
				    .body = world_text(body),
				    .subject = world_text(subject)};

	cr_assert_leq(batch->used + envelope_size_max(&envelope), sizeof(batch->bytes));
	batch->used += envelope_encode(batch->bytes + batch->used, &envelope);
	batch->count++;
}

struct frame_publish world_batch_publish(const struct world_batch *batch, const char *subject)
{
	return (struct frame_publish){.count = batch->count,
				      .raw_bytes = (uint32_t)batch->used,
				      .subject = world_text(subject),
				      .payload = {batch->bytes, batch->used}};
}

struct outcome world_publish(struct world *world, const char *subject, const char *body)
{
	static struct world_batch batch;
	struct frame_publish publish;

	batch.used = batch.count = 0;
	world_batch_add(&batch, NULL, body, 0);
	publish = world_batch_publish(&batch, subject);
	return world_apply(world, COMMAND_PUBLISH, 0, &publish);
}

struct stream_ref world_stream_ref(struct world *world, const char *name)
{
	struct stream_ref ref;
	struct store_txn *txn;

	MUST(store_begin_read(world->store, &txn));
	MUST(core_stream_find(txn, world->gateway, world_text(name), &ref));
	store_abort(txn);
	return ref;
}

struct queue_ref world_queue_ref(struct world *world, const char *name)
{
	struct queue_ref ref;
	struct store_txn *txn;

	MUST(store_begin_read(world->store, &txn));
	MUST(core_queue_find(txn, world->gateway, world_text(name), &ref));
	store_abort(txn);
	return ref;
}

static void print_segment(const struct segment *segment, uint64_t first, char *text, size_t size)
{
	struct sluice_slice rest = segment->payload;
	uint8_t *raw = NULL;
	const char *why = "";

	if (segment->codec == BATCH_ZSTD) {
		MUST(batch_decompress(segment->payload, segment->raw_bytes, &raw, &why));
		rest = (struct sluice_slice){raw, segment->raw_bytes};
	}
	for (uint64_t offset = segment->base; rest.len > 0; offset++) {
		struct envelope envelope;
		struct sluice_slice subject;

		MUST(envelope_next(&rest, &envelope, &why));
		subject = segment->subject.len > 0 ? segment->subject : envelope.subject;
		if (offset < first)
			continue;
		snprintf(text + strlen(text), size - strlen(text), "%s%.*s=%.*s",
			 text[0] != 0 ? " " : "", (int)subject.len, (const char *)subject.data,
			 (int)envelope.body.len, (const char *)envelope.body.data);
	}
	free(raw);
}

const char *world_events(struct world *world, const char *name)
{
	static char text[16384];
	struct stream_ref ref = world_stream_ref(world, name);
	struct segment segment;
	struct store_txn *txn;
	uint64_t offset = ref.first_offset;
	int rc;

	text[0] = 0;
	MUST(store_begin_read(world->store, &txn));
	while ((rc = core_segment_read(txn, world->gateway, ref.log, offset, &segment)) == 0) {
		print_segment(&segment, ref.first_offset, text, sizeof(text));
		offset = segment.last + 1;
	}
	cr_assert_eq(rc, SLUICE_E_NOT_FOUND);
	cr_assert_eq(offset, ref.next_offset, "the log has no events after its head");
	store_abort(txn);
	return text;
}

size_t world_segments(struct world *world, const char *name)
{
	struct stream_ref ref = world_stream_ref(world, name);
	struct segment segment;
	struct store_txn *txn;
	uint64_t offset = 0;
	size_t count = 0;

	MUST(store_begin_read(world->store, &txn));
	while (core_segment_read(txn, world->gateway, ref.log, offset, &segment) == 0) {
		offset = segment.last + 1;
		count++;
	}
	store_abort(txn);
	return count;
}

uint64_t world_ready(struct world *world, const char *queue)
{
	Sluice__QueueShow show = SLUICE__QUEUE_SHOW__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;

	show.name = (char *)(uintptr_t)queue;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_SHOW;
	request.queue_show = &show;
	reply = world_query(world, &request);
	cr_assert_eq(reply->n_queues, 1, "%s", reply->text);
	return reply->queues[0]->ready;
}

uint64_t world_records(struct world *world, enum store_table table)
{
	struct sluice_slice key, value;
	struct store_scan *scan;
	struct store_txn *txn;
	uint64_t count = 0;

	MUST(store_begin_read(world->store, &txn));
	MUST(store_scan_begin(txn, table, (struct sluice_slice){"", 0}, &scan));
	while (store_scan_next(scan, &key, &value) == 0)
		count++;
	store_scan_end(scan);
	store_abort(txn);
	return count;
}
