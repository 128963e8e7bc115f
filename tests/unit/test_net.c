/* SPDX-License-Identifier: Apache-2.0
 * Connections without threads: the test turns the loop and the engine itself. Also: how often a
 * listener receives the same bytes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "broker/core/base/keys.h"
#include "broker/util/log.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

Test(net, the_native_listener_asks_for_a_frame_only_when_all_of_it_is_there)
{
	static uint8_t frame[FRAME_HEADER_BYTES + LARGE_BYTES];
	struct frame_header header = {.body_bytes = LARGE_BYTES, .type = UNKNOWN_TYPE, .corr = 1};
	struct rig rig;
	struct conn *conn;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	cr_expect_eq(conn->wanted, 0);
	frame_header_encode(frame, &header);
	feed(&rig, frame, FRAME_HEADER_BYTES);
	cr_expect_eq(conn->wanted, sizeof(frame), "the header has the length: %zu", conn->wanted);
	feed(&rig, frame + FRAME_HEADER_BYTES, LARGE_BYTES);
	cr_expect_eq(answer(&rig), FRAME_REPLY);
	cr_expect_eq(conn->wanted, 0);
	rig_close(&rig);
}

/* ---- a listener that counts ---- */

struct counter {
	const struct sluice_listener_host *host;
	struct conn *conn;
	size_t wanted, calls, bytes;
	size_t most; /* taken at once; 0: all */
	size_t items, damaged, answers;
	int code; /* of the last answer */
};
static struct counter counter;

static int counter_accept(const struct sluice_listener_host *host, sluice_conn *conn,
			  void **ret_state)
{
	counter.host = host;
	counter.conn = (struct conn *)conn;
	*ret_state = &counter;
	return 0;
}

static long counter_bytes(void *state, const void *bytes, size_t len)
{
	(void)state;
	(void)bytes;
	counter.calls++;
	if (len < counter.wanted) {
		counter.conn->wanted = counter.wanted;
		return 0;
	}
	if (counter.most != 0 && len > counter.most)
		len = counter.most;
	counter.bytes += len;
	return (long)len;
}

static void counter_effect(void *state, const struct sluice_listener_effect *effect)
{
	(void)state;
	counter.items += effect->kind == SLUICE_EFFECT_ITEM;
	counter.damaged += effect->kind == SLUICE_EFFECT_DAMAGED && effect->seq == 17;
	if (effect->kind != SLUICE_EFFECT_ANSWER)
		return;
	counter.answers++;
	counter.code = effect->code;
}

static void counter_closed(void *state)
{
	(void)state;
}

static const struct sluice_listener_ops counter_ops = {
	.struct_size = sizeof(struct sluice_listener_ops),
	.protocol = "counter",
	.accept = counter_accept,
	.bytes = counter_bytes,
	.effect = counter_effect,
	.closed = counter_closed,
};

static uint8_t zeros[LARGE_BYTES];

Test(net, requested_bytes_are_given_once_when_all_have_arrived)
{
	struct rig rig;

	counter = (struct counter){.wanted = LARGE_BYTES};
	rig_open_as(&rig, &foreign_protocol, &counter_ops);
	feed(&rig, zeros, LARGE_BYTES);
	for (int n = 0; n < 1000 && counter.bytes < LARGE_BYTES; n++)
		turn(&rig);
	cr_expect_eq(counter.bytes, LARGE_BYTES);
	cr_expect_eq(counter.calls, 2, "its beginning, and all of it: %zu", counter.calls);
	rig_close(&rig);
}

Test(net, what_waits_in_a_socket_is_read_in_large_pieces)
{
	struct rig rig;

	counter = (struct counter){0};
	rig_open_as(&rig, &foreign_protocol, &counter_ops);
	cr_assert_eq(write(rig.fd, zeros, PIECE_BYTES), PIECE_BYTES);
	for (int n = 0; n < 1000 && counter.bytes < PIECE_BYTES; n++)
		turn(&rig);
	cr_expect_eq(counter.bytes, PIECE_BYTES);
	cr_expect_lt(counter.calls, 5, "not 4 KiB at a time: %zu", counter.calls);
	rig_close(&rig);
}

/* ---- unsent output of other threads' connections ---- */

static _Atomic bool others_run_now, others_stop;

static void *others_run(void *user)
{
	struct net *net = user;

	while (!atomic_load(&others_stop)) {
		atomic_store(&others_run_now, true);
		atomic_fetch_add(&net->unsent, (uint64_t)1 << 40);
		atomic_fetch_sub(&net->unsent, (uint64_t)1 << 40);
	}
	return NULL;
}

Test(net, a_connection_that_one_check_of_the_bounds_stopped_continues_after_another)
{
	enum { TURNS = 20000, TURN_BYTES = 64 };
	pthread_t others;
	struct rig rig;

	counter = (struct counter){.most = 1};
	rig_open_as(&rig, &foreign_protocol, &counter_ops);
	/* Output that nobody reads: so the bound on the total applies to this connection, while
	 * others exceed it and fall below it in turn. */
	counter.conn->gateway =
		1; /* entered: the turns may take longer than a client has for that */
	conn_write(counter.conn, zeros, sizeof(zeros));
	cr_assert_eq(pthread_create(&others, NULL, others_run, rig.net), 0);
	while (!atomic_load(&others_run_now))
		(void)sched_yield();
	for (int i = 0; i < TURNS; i++) {
		feed(&rig, zeros, TURN_BYTES);
		cr_assert(counter.conn->kept_start == counter.conn->kept_end ||
				  counter.conn->is_stopped,
			  "turn %d: the connection is read while %zu earlier bytes are not handled",
			  i, counter.conn->kept_end - counter.conn->kept_start);
	}
	atomic_store(&others_stop, true);
	(void)pthread_join(others, NULL);
	event_active(rig.net->ios[0].wake, EV_READ, 0);
	for (int n = 0; n < 1000 && counter.bytes < TURNS * TURN_BYTES; n++)
		turn(&rig);
	cr_expect_eq(counter.bytes, TURNS * TURN_BYTES);
	rig_close(&rig);
}

/* ---- waiters of other jobs cost nothing ---- */

static void job_do(struct rig *rig, uint32_t corr, Sluice__Request__OpCase op, const char *job)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	Sluice__JobWait wait = SLUICE__JOB_WAIT__INIT;
	char queue[] = "jobs";

	submit.queue = queue;
	submit.job = cancel.job = wait.job = (char *)(uintptr_t)job;
	request.op_case = op;
	if (op == SLUICE__REQUEST__OP_JOB_SUBMIT)
		request.job_submit = &submit;
	else if (op == SLUICE__REQUEST__OP_JOB_CANCEL)
		request.job_cancel = &cancel;
	else
		request.job_wait = &wait;
	ask(rig, corr, &request);
}

static void jobs_queue(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	char queue[] = "jobs";

	config.name = queue;
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_CREATE;
	request.queue_create = &create;
	ask(rig, 1, &request);
	cr_assert_eq(reply_code(rig, 1), 0);
}

Test(net, the_end_of_a_job_costs_its_own_waiters_only)
{
	enum { WAITERS = 1000 };
	struct rig rig;

	greet(&rig);
	jobs_queue(&rig);
	job_do(&rig, 2, SLUICE__REQUEST__OP_JOB_SUBMIT, "never");
	cr_assert_eq(reply_code(&rig, 2), 0);
	job_do(&rig, 3, SLUICE__REQUEST__OP_JOB_SUBMIT, "other");
	cr_assert_eq(reply_code(&rig, 3), 0);
	for (uint32_t n = 0; n < WAITERS; n++)
		job_do(&rig, 100 + n, SLUICE__REQUEST__OP_JOB_WAIT, "never");
	cr_assert_eq(rig.net->ios[0].conns->waiter_count, WAITERS);
	job_do(&rig, 4, SLUICE__REQUEST__OP_JOB_CANCEL, "other");
	cr_assert_eq(reply_code(&rig, 4), 0);
	cr_expect_eq(rig.net->ios[0].waiters_visited, 0,
		     "%llu of another job's waiters were visited",
		     (unsigned long long)rig.net->ios[0].waiters_visited);
	job_do(&rig, 5, SLUICE__REQUEST__OP_JOB_CANCEL, "never");
	cr_assert_eq(reply_code(&rig, 5), 0);
	for (uint32_t n = 0; n < WAITERS; n++)
		cr_assert_eq(reply_code(&rig, 100 + n), 0);
	cr_expect_eq(rig.net->ios[0].waiters_visited, WAITERS);
	cr_expect_null(rig.net->ios[0].waited);
	cr_expect_eq(rig.net->ios[0].conns->waiter_count, 0);
	rig_close(&rig);
}

static void submission_damage(struct rig *rig, uint64_t number)
{
	struct store_txn *txn = NULL;
	struct key key;

	key_one(&key, 1, number);
	cr_assert_eq(store_begin(rig->store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_JOB, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
}

/* The reply to corr is CORRUPT, and names the record. */
static void reply_names_submission(struct rig *rig, uint32_t corr)
{
	struct frame_header header;
	uint8_t body[4096];
	Sluice__Reply *reply;

	cr_assert_eq(answer_body(rig, &header, body), FRAME_REPLY);
	cr_assert_eq(header.corr, corr, "%u", header.corr);
	reply = sluice__reply__unpack(NULL, header.body_bytes, body);
	cr_assert_not_null(reply);
	cr_expect_eq(reply->code, SLUICE_E_CORRUPT, "%d", reply->code);
	cr_expect_not_null(strstr(reply->text, "table job, key "), "%s", reply->text);
	sluice__reply__free_unpacked(reply, NULL);
}

Test(net, a_wait_for_a_damaged_job_names_the_record)
{
	struct rig rig;

	greet(&rig);
	jobs_queue(&rig);
	job_do(&rig, 2, SLUICE__REQUEST__OP_JOB_SUBMIT, "a");
	cr_assert_eq(reply_code(&rig, 2), 0);
	job_do(&rig, 3, SLUICE__REQUEST__OP_JOB_WAIT, "a");
	turns(&rig);
	submission_damage(&rig, 1);
	job_do(&rig, 4, SLUICE__REQUEST__OP_JOB_WAIT, "a");
	reply_names_submission(&rig, 4);
	/* Earlier waiters are notified of it at the end of the job, which can be cancelled because
	 * its live record is sound. */
	job_do(&rig, 5, SLUICE__REQUEST__OP_JOB_CANCEL, "a");
	cr_assert_eq(reply_code(&rig, 5), 0);
	reply_names_submission(&rig, 3);
	rig_close(&rig);
}

Test(net, waiters_end_with_their_connection)
{
	struct rig rig;

	greet(&rig);
	jobs_queue(&rig);
	job_do(&rig, 2, SLUICE__REQUEST__OP_JOB_SUBMIT, "never");
	cr_assert_eq(reply_code(&rig, 2), 0);
	for (uint32_t n = 0; n < 10; n++)
		job_do(&rig, 100 + n, SLUICE__REQUEST__OP_JOB_WAIT, "never");
	cr_assert_not_null(rig.net->ios[0].waited);
	(void)shutdown(rig.fd, SHUT_RDWR);
	for (int n = 0; n < 1000 && rig.net->ios[0].conns != NULL; n++)
		turn(&rig);
	cr_expect_null(rig.net->ios[0].conns, "a closed connection is noticed while it waits");
	cr_expect_null(rig.net->ios[0].waited);
	rig_close(&rig);
}

Test(net, the_timer_does_not_check_idle_connections)
{
	struct rig rig;
	struct io *io;

	greet(&rig);
	io = &rig.net->ios[0];
	for (int n = 0; n < 1000; n++) {
		event_active(io->timer, EV_TIMEOUT, 0);
		turn(&rig);
	}
	/* Its first deadline, 10 s without HELLO, may have passed on a very slow machine. */
	cr_expect_leq(io->lives_checked, 1, "%llu checks", (unsigned long long)io->lives_checked);
	rig_close(&rig);
}

Test(net, the_wheel_gives_each_deadline_once_and_in_time)
{
	enum { ENTRIES = 3000, LAST_MS = 400000 };
	static struct wheel_entry entries[ENTRIES];
	static bool gone[ENTRIES];
	struct wheel wheel;
	struct wheel_entry *due;
	uint64_t now = 12345, seed = 7;
	size_t left = ENTRIES;

	wheel_init(&wheel, now);
	for (size_t i = 0; i < ENTRIES; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		wheel_set(&wheel, &entries[i], now + (seed >> 33) % LAST_MS);
	}
	for (size_t i = 0; i < ENTRIES; i += 3) /* moved, to earlier and to later times */
		wheel_set(&wheel, &entries[i], entries[i].due_ms + (i % 2 == 0 ? 1000 : 0));
	for (size_t i = 1; i < ENTRIES; i += 10) {
		wheel_remove(&wheel, &entries[i]);
		wheel_remove(&wheel, &entries[i]); /* removing it twice changes nothing */
		gone[i] = true;
		left--;
	}
	while (now < 12345 + LAST_MS + 2000) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		now += (seed >> 33) % 700;
		while ((due = wheel_due(&wheel, now)) != NULL) {
			cr_assert(!gone[due - entries] && due->due_ms <= now);
			gone[due - entries] = true;
			left--;
		}
		for (size_t i = 0; i < ENTRIES; i++)
			cr_assert(gone[i] || entries[i].due_ms + WHEEL_TICK_MS > now,
				  "%zu was due at %llu, it is %llu", i,
				  (unsigned long long)entries[i].due_ms, (unsigned long long)now);
	}
	cr_expect_eq(left, 0);
	cr_expect_eq(wheel.count, 0);
	cr_expect_lt(wheel.visited, 5 * ENTRIES,
		     "once a turn of the wheel, and when it is due: %llu",
		     (unsigned long long)wheel.visited);
	/* After a stop of any length all due entries are returned. */
	for (size_t i = 0; i < 10; i++)
		wheel_set(&wheel, &entries[i], now + i * 100000);
	now += 86400000;
	for (size_t i = 0; i < 10; i++)
		cr_assert_not_null(wheel_due(&wheel, now));
	cr_expect_null(wheel_due(&wheel, now));
}

/* ---- credit, and peers that do not read ---- */

Test(net, a_flood_of_credit_and_pings_leaves_one_note_and_a_bounded_output)
{
	enum { FRAMES = 1000, ROUNDS = 100 };
	static uint8_t bytes[FRAMES * (FRAME_HEADER_BYTES + 8)];
	const uint8_t one[8] = {0, 0, 0, 1, 0, 0, 0, 1}; /* subscription 1, one more */
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__ConsumeOpen open = SLUICE__CONSUME_OPEN__INIT;
	struct engine_facts facts;
	char queue[] = "jobs";
	struct rig rig;
	size_t len = 0;

	greet(&rig);
	jobs_queue(&rig);
	open.queue = queue;
	open.subscription = open.credit = 1;
	request.op_case = SLUICE__REQUEST__OP_CONSUME_OPEN;
	request.consume_open = &open;
	ask(&rig, 2, &request);
	cr_assert_eq(reply_code(&rig, 2), 0);
	for (int n = 0; n < FRAMES; n++)
		len += frame_put(bytes + len, FRAME_CREDIT, one, sizeof(one));
	/* The engine does not run, as during a slow sync. */
	for (int n = 0; n < ROUNDS; n++) {
		size_t sent = 0;

		while (sent < len) {
			ssize_t put = write(rig.fd, bytes + sent, len - sent);

			if (put > 0)
				sent += (size_t)put;
			(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
		}
	}
	engine_facts_get(rig.engine, &facts);
	cr_expect_eq(facts.notes, 1, "%llu notes", (unsigned long long)facts.notes);
	/* PINGs whose answers nobody reads: the broker stops reading from the connection. */
	len = 0;
	while (len + FRAME_HEADER_BYTES <= sizeof(bytes))
		len += frame_put(bytes + len, FRAME_PING, one, 0);
	for (int n = 0; n < 100000 && !rig.net->ios[0].conns->is_stopped; n++) {
		(void)!write(rig.fd, bytes, len - len % FRAME_HEADER_BYTES);
		(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	}
	cr_expect(rig.net->ios[0].conns->is_stopped);
	cr_expect_lt(conn_unsent(rig.net->ios[0].conns), LIMIT_OUTBOX_BYTES_MAX);
	rig_close(&rig);
}

Test(net, a_foreign_consumer_that_does_not_read_is_paused_and_notified_of_damage)
{
	struct sluice_slice queue = {"dead-letter", 11}, subject = {"s", 1}, body = {"b", 1};
	sluice_conn *handle;
	struct rig rig;
	struct sub *sub;

	counter = (struct counter){0};
	rig_open_as(&rig, &foreign_protocol, &counter_ops);
	handle = (sluice_conn *)counter.conn;
	cr_assert_eq(counter.host->session(handle, "default", 5000, 1), 0);
	turns(&rig);
	cr_assert_eq(counter.host->consume(handle, 7, queue, 100, 0), 0);
	cr_assert_eq(counter.host->publish(handle, 2, subject, queue, body), 0);
	turns(&rig);
	cr_assert_eq(counter.items, 1);
	/* limit: OUTBOX_BYTES_MAX: half of it and a byte is full. */
	for (size_t put = 0; put <= LIMIT_OUTBOX_BYTES_MAX / 2; put += LARGE_BYTES)
		conn_write(counter.conn, zeros, LARGE_BYTES);
	cr_assert(conn_is_full(counter.conn));
	cr_assert_eq(counter.host->publish(handle, 3, subject, queue, body), 0);
	turns(&rig);
	cr_assert_eq(counter.items, 2, "it was claimed before");
	cr_assert_eq(counter.host->publish(handle, 4, subject, queue, body), 0);
	turns(&rig);
	cr_expect_eq(counter.items, 2, "nothing is claimed for a connection that is full");
	for (int n = 0; n < 100000 && counter.items < 3; n++) {
		static uint8_t sink[1 << 16];

		(void)!read(rig.fd, sink, sizeof(sink));
		turn(&rig);
	}
	cr_expect_eq(counter.items, 3, "and again when it has read");
	sub = sub_find(counter.conn, 7);
	cr_assert_not_null(sub);
	counter.conn->protocol->effect(counter.conn, sub,
				       &(struct effect){.kind = FX_ITEM_DAMAGED,
							.seq = 17,
							.name = {"item", 4}});
	cr_expect_eq(counter.damaged, 1);
	rig_close(&rig);
}

/* A listener that continues to read after the peer announced that it closes. */
Test(net, a_foreign_listener_begins_nothing_after_it_has_closed)
{
	struct sluice_slice queue = {"dead-letter", 11}, stream = {"jobs", 4}, subject = {"s", 1},
			    nothing = {"", 0};
	sluice_conn *handle;
	struct rig rig;

	counter = (struct counter){0};
	rig_open_as(&rig, &foreign_protocol, &counter_ops);
	handle = (sluice_conn *)counter.conn;
	cr_assert_eq(counter.host->session(handle, "default", 5000, 1), 0);
	turns(&rig);
	counter.host->close(handle, "it closes");
	cr_expect_eq(counter.host->consume(handle, 7, queue, 100, 0), SLUICE_E_CLOSED);
	cr_expect_eq(counter.host->follow(handle, 8, stream, 0, 100), SLUICE_E_CLOSED);
	cr_expect_eq(counter.host->publish(handle, 2, subject, queue, subject), SLUICE_E_CLOSED);
	cr_expect_eq(counter.host->ack(handle, 3, 7, 1, 1, true), SLUICE_E_CLOSED);
	cr_expect_eq(counter.host->request(handle, 4, nothing), SLUICE_E_CLOSED);
	cr_expect_eq(counter.host->session(handle, "default", 5000, 5), SLUICE_E_CLOSED);
	turns(&rig);
	cr_expect_null(rig.net->ios[0].conns);
	rig_close(&rig);
}

/* ---- a long read ---- */

/* The loop checks its sockets once, and does not continue until it is idle. */
static void pass(struct rig *rig)
{
	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK | EVLOOP_ONCE);
}

static void ask_once(struct rig *rig, uint32_t corr, const Sluice__Request *request)
{
	uint8_t bytes[256];
	size_t len = request_frame(bytes, corr, request);

	cr_assert_eq(write(rig->fd, bytes, len), (ssize_t)len);
	pass(rig);
}

/* Enough records that a read of all of them needs several turns. */
static void submit_many(struct rig *rig)
{
	enum { JOBS = 20000, AT_ONCE = 200 };
	static uint8_t bytes[AT_ONCE * 128];
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;
	char queue[] = "jobs", job[16];

	jobs_queue(rig);
	submit.queue = queue;
	submit.job = job;
	request.op_case = SLUICE__REQUEST__OP_JOB_SUBMIT;
	request.job_submit = &submit;
	for (unsigned n = 0; n < JOBS; n += AT_ONCE) {
		size_t len = 0;

		for (unsigned i = 0; i < AT_ONCE; i++) {
			(void)snprintf(job, sizeof(job), "%u", n + i);
			len += request_frame(bytes + len, 100 + i, &request);
		}
		feed(rig, bytes, len);
		for (unsigned i = 0; i < AT_ONCE; i++)
			cr_assert_eq(reply_code(rig, 100 + i), 0);
	}
}

Test(net, others_are_served_between_the_turns_of_a_long_read)
{
	uint8_t bytes[1024];
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	uint8_t ping[FRAME_HEADER_BYTES], body[FRAME_HEADER_BYTES];
	char state[] = "FAILED";
	int pair[2], pongs = 0, rounds = 0;
	struct rig rig;

	greet(&rig);
	submit_many(&rig);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(net_adopt(rig.net, &native_protocol, NULL, pair[0]), 0);
	cr_assert_eq(write(pair[1], plain_hello, sizeof(plain_hello)),
		     (ssize_t)sizeof(plain_hello));
	turns(&rig);
	cr_assert_gt(read(pair[1], bytes, sizeof(bytes)), 0);
	list.state = state;
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &list;
	ask_once(&rig, 5, &request);
	cr_assert_not_null(rig.net->ios[0].readers, "it needs more than one turn");
	(void)frame_put(ping, FRAME_PING, "", 0);
	while (recv(rig.fd, body, sizeof(body), MSG_PEEK) < 0) {
		cr_assert_eq(write(pair[1], ping, sizeof(ping)), (ssize_t)sizeof(ping));
		pass(&rig);
		while (read(pair[1], body, sizeof(body)) == (ssize_t)sizeof(body))
			pongs++;
		cr_assert_lt(rounds++, 1000);
	}
	cr_expect_gt(pongs, 2, "%d PINGs were answered while it read", pongs);
	cr_expect_eq(reply_code(&rig, 5), 0);
	cr_expect_eq(rig.net->ios[0].readings_begun, 0);
	/* The peer disconnects in the middle of a read. */
	ask_once(&rig, 6, &request);
	cr_assert_not_null(rig.net->ios[0].readers);
	(void)shutdown(rig.fd, SHUT_RDWR);
	turns(&rig);
	cr_expect_null(rig.net->ios[0].readers);
	cr_expect_eq(rig.net->ios[0].readings_begun, 0);
	(void)close(pair[1]);
	rig_close(&rig);
}

/* Begun reads are counted and bounded for all connections together: a read that waits for its peer
 * would block the reads of all. */
Test(net, a_read_that_is_begun_ends_although_its_output_is_full)
{
	static uint8_t block[LIMIT_SIZE(OUTBOX_BYTES_MAX) / 2 + 1];
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	char state[] = "FAILED";
	struct rig rig;
	struct io *io;

	greet(&rig);
	submit_many(&rig);
	io = &rig.net->ios[0];
	list.state = state;
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &list;
	ask_once(&rig, 5, &request);
	cr_assert_eq(io->readings_begun, 1, "it needs more than one turn");
	conn_write(io->conns, block, sizeof(block));
	conn_write(io->conns, block, sizeof(block));
	cr_assert(conn_is_full(io->conns));
	turns(&rig);
	cr_expect(conn_is_full(io->conns), "the peer reads nothing");
	cr_expect_eq(io->readings_begun, 0);
	rig_close(&rig);
}
