/* SPDX-License-Identifier: Apache-2.0
 * stopped_probe ADDRESS SCENARIO PID: checks what client.h says about a broker that is stopped
 * (SIGSTOP to PID) or killed while a client is connected: deadlines on every call, the policies of
 * the publish buffer, no SIGPIPE, the order of callbacks, and a caller's loop that polls one
 * descriptor only. */
#include <dirent.h>
#include <poll.h>
#include <signal.h>

#include "tests/integration/probe.h"

enum { SHORT_MS = 100 };

static pid_t broker;

static sluice_client *connected_with(sluice_notice_fn *on_notice, void *user,
				     const char *const *settings)
{
	sluice_client *client = client_of(on_notice, user, settings);

	EQUAL(sluice_wait_connected(client, PATIENCE_MS), 0);
	return client;
}

/* Whether all threads of the broker are stopped: on a busy machine the signal takes some time, and
 * the broker answers until then. */
static bool is_stopped(void)
{
	char path[300], line[512];
	const struct dirent *entry;
	bool stopped = true;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)broker);
	dir = opendir(path);
	if (dir == NULL)
		return false;
	while ((entry = readdir(dir)) != NULL) {
		FILE *file;
		const char *state;

		(void)snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)broker,
			       entry->d_name);
		file = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
		if (file == NULL)
			continue;
		state = fgets(line, sizeof(line), file) != NULL ? strrchr(line, ')') : NULL;
		stopped = stopped && state != NULL && state[1] == ' ' && state[2] == 'T';
		(void)fclose(file);
	}
	(void)closedir(dir);
	return stopped;
}

static void stop_broker(void)
{
	CHECK(kill(broker, SIGSTOP) == 0);
	for (int waited = 0; waited < PATIENCE_MS && !is_stopped(); waited++)
		(void)usleep(1000);
	CHECK(is_stopped());
}

static const char *const modes[] = {"own-thread", "caller-loop"};

/* ---- deadlines ---- */

static void every_call_ends_at_its_deadline(void)
{
	const sluice_call soon = SLUICE_CALL(.deadline_ms = SHORT_MS);

	for (int i = 0; i < 2; i++) {
		sluice_client *client =
			connected_with(NULL, NULL, (const char *const[]){"mode", modes[i], NULL});
		sluice_txn *txn = sluice_txn_create();
		sluice_sub *sub = NULL, *other = NULL;
		sluice_delivery *delivery = NULL;
		sluice_reply *reply = NULL;

		EQUAL(sluice_queue_create(client,
					  &SLUICE_QUEUE_SPEC(.name = "q", .if_not_exists = true),
					  NULL, NULL),
		      0);
		EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);
		EQUAL(sluice_txn_publish(txn, &SLUICE_MESSAGE(.subject = "a")), 0);
		stop_broker();
		EQUAL(sluice_status(client, &soon, &reply), SLUICE_E_TIMEOUT);
		CHECK(sluice_reply_text(reply)[0] != 0 && sluice_reply_retriable(reply));
		sluice_reply_free(reply);
		EQUAL(sluice_job_wait(client, "j", 0, &soon, NULL), SLUICE_E_TIMEOUT);
		EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "s"), &soon, &other),
		      SLUICE_E_TIMEOUT);
		CHECK(other == NULL);
		EQUAL(sluice_item_ack(sub, 1, 1, &soon, NULL), SLUICE_E_TIMEOUT);
		EQUAL(sluice_lease_extend(sub, 1, 0, &soon, NULL), SLUICE_E_TIMEOUT);
		EQUAL(sluice_sub_next(sub, SHORT_MS, &delivery), SLUICE_E_TIMEOUT);
		EQUAL(sluice_sub_close(sub, SHORT_MS), SLUICE_E_TIMEOUT);
		/* Not sent, or sent without an answer: the producer was not open yet, or is being
		 * opened. */
		EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a"), &soon, NULL),
		      SLUICE_E_TIMEOUT);
		EQUAL(sluice_txn_commit(client, txn, &soon, NULL), SLUICE_E_TIMEOUT);
		EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a"),
				     &SLUICE_CALL(.user = SLUICE_FIRE), NULL),
		      0);
		EQUAL(sluice_flush(client, SHORT_MS), SLUICE_E_TIMEOUT);
		EQUAL(sluice_close(client, true, SHORT_MS), SLUICE_E_TIMEOUT);
		CHECK(kill(broker, SIGCONT) == 0);
		sluice_txn_destroy(txn);
	}
}

/* ---- the publish buffer ---- */

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	if (sluice_reply_code(reply) == 0)
		atomic_fetch_add((atomic_int *)user, 1);
}

static int publish_until_refused(sluice_client *client, const sluice_call *call, int *ret_count)
{
	static const char body[1000] = {0};
	int rc = 0;

	for (*ret_count = 0; rc == 0 && *ret_count < 1000; *ret_count += rc == 0)
		rc = sluice_publish(client,
				    &SLUICE_MESSAGE(.subject = "a", .body = {body, sizeof(body)}),
				    call, NULL);
	return rc;
}

static void the_publish_buffer_has_a_bound(void)
{
	static const char *const policies[] = {"fail", "block"};

	for (int i = 0; i < 2; i++) {
		sluice_client *client =
			connected_with(NULL, NULL,
				       (const char *const[]){"buffer_bytes", "10000",
							     "buffer_policy", policies[i], NULL});
		atomic_int answered = 0;
		sluice_publish_stats stats = SLUICE_PUBLISH_STATS();
		int count;

		stop_broker();
		/* An asynchronous publish gets the result at once, with both policies. */
		EQUAL(publish_until_refused(client,
					    &SLUICE_CALL(.deadline_ms = -1, .done = on_done,
							 .user = &answered),
					    &count),
		      SLUICE_E_BUFFER_FULL);
		CHECK(count >= 9 && count <= 10);
		sluice_publish_stats_get(client, &stats);
		CHECK(stats.buffered_bytes >= 9000 && stats.buffered_bytes < 12000 &&
		      stats.acked == 0);
		EQUAL(publish_until_refused(client,
					    &SLUICE_CALL(.deadline_ms = SHORT_MS,
							 .user = SLUICE_FIRE),
					    &count),
		      i == 0 ? SLUICE_E_BUFFER_FULL : SLUICE_E_TIMEOUT);
		CHECK(count == 0);
		CHECK(kill(broker, SIGCONT) == 0);
		EQUAL(sluice_flush(client, PATIENCE_MS), 0);
		sluice_publish_stats_get(client, &stats);
		CHECK(stats.buffered_bytes == 0 && stats.in_flight == 0 &&
		      stats.acked == stats.published);
		CHECK((uint64_t)atomic_load(&answered) == stats.acked);
		EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	}
}

/* ---- a broker that ends ---- */

struct order {
	atomic_int count;
	int seen[16]; /* event kinds; 100 + code of a call's end */
};

static void seen(struct order *order, int what)
{
	int at = atomic_load(&order->count);

	if (at < 16)
		order->seen[at] = what;
	atomic_store(&order->count, at + 1);
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	seen(user, (int)notice->kind);
}

static void on_answer(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	seen(user, 100 - sluice_reply_code(reply));
}

/* The broker is killed while SIGPIPE has its default disposition, which would end this process. A
 * call that cannot be repeated ends before the notice DISCONNECTED; later writes raise no signal.
 */
static void a_killed_broker_is_told_in_order(void)
{
	struct order order = {0};
	sluice_client *client = connected_with(on_notice, &order, NULL);
	const sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_answer, .user = &order);

	(void)signal(SIGPIPE, SIG_DFL);
	CHECK(order.seen[0] == SLUICE_NOTICE_CONNECTED);
	stop_broker();
	EQUAL(sluice_job_reset(client, "j", false, "", &call, NULL), 0);
	/* It is in flight when the loop has written it; the next call cannot be repeated either. */
	EQUAL(sluice_status(client, &SLUICE_CALL(.deadline_ms = SHORT_MS), NULL), SLUICE_E_TIMEOUT);
	CHECK(kill(broker, SIGKILL) == 0);
	for (int waited = 0; waited < PATIENCE_MS && atomic_load(&order.count) < 3; waited += 5)
		(void)usleep(5000);
	CHECK(order.seen[1] == 100 - SLUICE_E_UNKNOWN);
	CHECK(order.seen[2] == SLUICE_NOTICE_DISCONNECTED);
	for (int i = 0; i < 20; i++)
		EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a"),
				     &SLUICE_CALL(.user = SLUICE_FIRE), NULL),
		      0);
	EQUAL(sluice_status(client, &SLUICE_CALL(.deadline_ms = SHORT_MS), NULL), SLUICE_E_TIMEOUT);
	EQUAL(sluice_close(client, true, SHORT_MS), SLUICE_E_TIMEOUT);
	CHECK(atomic_load(&order.count) == 3);
}

/* ---- the caller's loop ---- */

/* Connects, publishes, times out and closes, polling sluice_fd() only: sluice_process() is called
 * only when it is readable. */
static void one_descriptor_is_enough(void)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	atomic_int answered = 0;
	struct order order = {0};
	int fd, asked = 0;

	EQUAL(sluice_config_set(config, "address", address), 0);
	EQUAL(sluice_config_set(config, "mode", "caller-loop"), 0);
	EQUAL(sluice_open(config, NULL, NULL, &client), 0);
	sluice_config_destroy(config);
	fd = sluice_fd(client);
	for (int turn = 0; turn < 20000 && atomic_load(&order.count) < 1; turn++) {
		for (; asked < 100 && asked <= atomic_load(&answered); asked++)
			EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a"),
					     &SLUICE_CALL(.done = on_done, .user = &answered),
					     NULL),
			      0);
		/* A deadline alone makes it readable, too. */
		if (asked == 100 && atomic_load(&answered) == 100) {
			stop_broker();
			EQUAL(sluice_status(client,
					    &SLUICE_CALL(.deadline_ms = SHORT_MS, .done = on_answer,
							 .user = &order),
					    NULL),
			      0);
			asked++;
		}
		CHECK(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENCE_MS) == 1);
		EQUAL(sluice_process(client, 0), 0);
		CHECK(sluice_fd(client) == fd);
	}
	CHECK(kill(broker, SIGCONT) == 0);
	CHECK(atomic_load(&answered) == 100 && order.seen[0] == 100 - SLUICE_E_TIMEOUT);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static const struct scenario scenarios[] = {
	{"every_call_ends_at_its_deadline", every_call_ends_at_its_deadline},
	{"the_publish_buffer_has_a_bound", the_publish_buffer_has_a_bound},
	{"a_killed_broker_is_told_in_order", a_killed_broker_is_told_in_order},
	{"one_descriptor_is_enough", one_descriptor_is_enough},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 4 && i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (strcmp(argv[2], scenarios[i].name) != 0)
			continue;
		address = argv[1];
		broker = (pid_t)atoi(argv[3]);
		scenarios[i].run();
		(void)kill(broker, SIGCONT);
		return atomic_load(&failures) == 0 ? 0 : 1;
	}
	(void)fprintf(stderr, "usage: stopped_probe ADDRESS SCENARIO PID\n");
	return 2;
}
