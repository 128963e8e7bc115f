/* SPDX-License-Identifier: Apache-2.0
 *
 * leave_sessions DIR QUEUE COUNT: opens COUNT ephemeral sessions and a free one in the store of a
 * broker that does not run, as its connections would. The first ephemeral one takes all items of
 * the queue for as long as it lives. What is left is what a broker finds that was killed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/engine/engine.h"
#include "broker/util/clock.h"

static struct engine *engine;
static uint64_t opened, items; /* the number of the last session */

static void on_post(struct engine_sink *sink, struct engine_release *release)
{
	for (size_t i = 0; i < effects_count(release->effects); i++) {
		const struct effect *effect = effects_at(release->effects, i);

		if (effect->kind == FX_REPLY && effect->outcome->kind == OUT_SESSION)
			opened = effect->outcome->id;
		items += effect->kind == FX_GRANT ? effect->count : 0;
	}
	engine_release_done(engine, sink, release);
}

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink, (void)tag;
}

static struct engine_sink sink = {.post = on_post, .kick = on_kick};

struct opening {
	struct submission submission;
	struct cmd_session_open body;
};

static void opening_free(struct submission *submission)
{
	free(submission);
}

static struct batch_clock now(void)
{
	return (struct batch_clock){clock_mono_ns() / 1000000, (uint64_t)clock_wall_ms()};
}

static void run(void)
{
	uint64_t wait_ms = 0;

	while (wait_ms == 0 && engine_step(engine, now(), &wait_ms) == 0)
		;
}

static bool session_open(const char *client, uint8_t flags)
{
	struct opening *opening = calloc(1, sizeof(*opening));

	if (opening == NULL)
		return false;
	opening->body = (struct cmd_session_open){.timeout_ms = 600000,
						  .flags = flags,
						  .client = {client, strlen(client)}};
	opening->submission.command = (struct command){.type = COMMAND_SESSION_OPEN,
						       .gateway = 1,
						       .body = &opening->body};
	opening->submission.bytes = sizeof(*opening);
	opening->submission.sink = &sink;
	opening->submission.control = true;
	opening->submission.destroy = opening_free;
	return engine_submit(engine, &opening->submission) == 0;
}

static bool hold(struct store *store, const char *queue)
{
	struct consumer_spec spec = {.gateway = 1,
				     .session = opened,
				     .credit = 1000,
				     .claim_flags = CLAIM_SESSION_LEASE,
				     .sink = &sink,
				     .tag = 1};
	struct store_txn *txn = NULL;
	struct queue_ref ref;
	int rc = store_begin_read(store, &txn);

	if (rc == 0)
		rc = core_queue_find(txn, 1, (struct sluice_slice){queue, strlen(queue)}, &ref);
	store_abort(txn);
	spec.queue = ref.id;
	if (rc == 0)
		rc = engine_consumer_open(engine, &spec);
	run();
	return rc == 0;
}

int main(int argc, char **argv)
{
	struct store_options options = {0};
	struct engine_config config = {0};
	struct store *store = NULL;
	const char *why = "";
	bool good;

	if (argc != 4)
		return 2;
	if (store_open_lmdb(argv[1], &options, &store, &why) != 0 ||
	    engine_create(&config, store, now(), &engine) != 0 ||
	    engine_sink_add(engine, &sink) != 0) {
		(void)fprintf(stderr, "%s\n", why);
		return 1;
	}
	good = session_open("ephemeral", SESSION_EPHEMERAL);
	run();
	good = good && hold(store, argv[2]) && session_open("free", 0);
	for (int n = 1; good && n < atoi(argv[3]); n++)
		good = session_open("ephemeral", SESSION_EPHEMERAL);
	run();
	(void)printf("%llu\n", (unsigned long long)items);
	engine_destroy(engine);
	store_close(store);
	return good ? 0 : 1;
}
