/* SPDX-License-Identifier: Apache-2.0
 *
 * An I/O thread of the broker without its loop and its sockets: two connections of the native
 * protocol. What they send are bytes; what they are sent is taken from conn_write, so in the order
 * in which the broker gives it, over both connections. Releases wait until the seed says that the
 * thread handles them: reads are made before, between and after that.
 */
#include "tests/sim/thread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

#include "broker/net/conn/answer.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wait.h"
#include "broker/net/io/release.h"
#include "broker/net/net.h"
#include "broker/net/protocols.h"
#include "broker/util/bytes.h"
#include "broker/util/clock.h"
#include "protocol/envelope.h"
#include "protocol/frame.h"
#include "tests/sim/plants.h"

enum {
	CONNS = 2,
	REQUESTS = 1024,
	QUEUE_MAX = 4096,
	OUT_BYTES = 1 << 20,
	FOLLOWED_CREDIT = 1000,
	REST_ROUNDS = 4,
	WAIT_MS_MAX = 8000
};

enum what { NONE, COMMAND, READ, WAIT, FOLLOW };
struct request {
	enum what what;
	int job;	/* WAIT */
	uint64_t event; /* COMMAND: the number of the event that it publishes; 0: none */
};

struct link {
	struct conn *conn; /* NULL: none */
	bool greeted;
	uint32_t corr;	   /* the last one */
	uint32_t mades;	   /* streams that it has made, to follow and delete them */
	uint32_t followed; /* the last of them, when it was followed; number of the subscription */
	bool follows;	   /* that one, */
	bool opened;	   /* and it was told so */
	struct request requests[REQUESTS];
	uint8_t out[OUT_BYTES]; /* of a frame that is not complete */
	size_t out_bytes;
};

static struct {
	struct sim *sim; /* NULL: none */
	struct net *net;
	struct link links[CONNS];
	struct engine_release *queue[QUEUE_MAX]; /* posted, not handled */
	size_t queue_count;
	uint64_t random;
	bool sent; /* a command was given to the engine */
} thread;

/* Apart from the seed's other decisions: the same steps without the thread remain the same. */
static uint64_t thread_roll(uint64_t n)
{
	thread.random = thread.random * 6364136223846793005u + 1442695040888963407u;
	return (thread.random >> 33) % n;
}

/* ---- instead of the system ---- */

WRAP(uint64_t, clock_mono_ns, void)
{
	return thread.sim != NULL ? (thread.sim->now.mono_ms + thread.sim->skew_ms) * 1000000
				  : __real_clock_mono_ns();
}

WRAP(int64_t, clock_wall_ms, void)
{
	return thread.sim != NULL ? (int64_t)thread.sim->now.wall_ms : __real_clock_wall_ms();
}

WRAP(ssize_t, getrandom, void *buf, size_t len, unsigned flags)
{
	if (thread.sim == NULL)
		return __real_getrandom(buf, len, flags);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)thread_roll(256);
	return (ssize_t)len;
}

/* ---- what the connections are sent ---- */

static struct link *link_of(const struct conn *conn)
{
	for (int i = 0; i < CONNS; i++) {
		if (thread.links[i].conn == conn)
			return &thread.links[i];
	}
	return NULL;
}

static int number_of(const struct link *link)
{
	return (int)(link - thread.links);
}

/* Of the effect that answers a command, and of one that ends a subscription. */
static uint64_t key_of_reply(const struct link *link, uint32_t corr)
{
	return (uint64_t)number_of(link) << 40 | corr;
}

static uint64_t key_of_end(const struct link *link, uint64_t subscription)
{
	return (uint64_t)number_of(link) << 40 | 1ull << 36 | subscription;
}

static void on_reply(struct link *link, uint32_t corr, struct sluice_slice body)
{
	struct request *request = &link->requests[corr % REQUESTS];
	Sluice__Reply *reply = sluice__reply__unpack(NULL, body.len, body.data);
	enum what what = request->what;

	must(reply == NULL ? SLUICE_E_NOMEM : 0, "a reply to the thread");
	request->what = NONE;
	if (what == NONE)
		oracle_blame(thread.sim->oracle, "a request is answered that was not sent",
			     number_of(link), corr);
	else if (what == COMMAND)
		oracle_thread_given(thread.sim->oracle, key_of_reply(link, corr));
	else /* a wait is not among the reads: it is answered when the job has ended */
		oracle_thread_shown(thread.sim->oracle, number_of(link), what == WAIT ? 0 : corr,
				    reply->index);
	if (what == WAIT && reply->code == 0 && (reply->n_jobs != 1 || !reply->jobs[0]->terminal))
		oracle_blame(thread.sim->oracle, "a wait is answered and the job has not ended",
			     request->job, 0);
	if (what == FOLLOW && reply->code == 0)
		link->opened = true;
	else if (what == FOLLOW)
		link->follows = false;
	sluice__reply__free_unpacked(reply, NULL);
}

static void on_notice(struct link *link, struct sluice_slice body)
{
	Sluice__Notice *notice = sluice__notice__unpack(NULL, body.len, body.data);

	must(notice == NULL ? SLUICE_E_NOMEM : 0, "a notice to the thread");
	if (notice->subscription != 0 && !link->opened)
		oracle_blame(thread.sim->oracle, "a notice precedes the answer of its subscription",
			     notice->subscription, notice->kind);
	if (notice->kind == SLUICE__NOTICE_KIND__NOTICE_SUBSCRIPTION_END) {
		oracle_thread_given(thread.sim->oracle, key_of_end(link, notice->subscription));
		link->follows = link->opened = false;
	}
	sluice__notice__free_unpacked(notice, NULL);
}

static bool publish_waits(uint64_t event)
{
	for (int c = 0; c < CONNS; c++) {
		for (int i = 0; i < REQUESTS; i++) {
			const struct request *request = &thread.links[c].requests[i];

			if (request->what == COMMAND && request->event == event)
				return true;
		}
	}
	return false;
}

/* The events of a commit follow its answers. */
static void on_deliver(struct link *link, struct sluice_slice body)
{
	struct frame_deliver frame;
	const char *why = "";

	if (!link->opened)
		oracle_blame(thread.sim->oracle, "an event precedes the answer of its subscription",
			     number_of(link), link->mades);
	must(frame_deliver_decode(body, &frame, &why), why);
	while (frame.payload.len > 0) {
		struct envelope e;

		must(envelope_next(&frame.payload, &e, &why), why);
		must(e.body.len != sizeof(uint64_t) ? SLUICE_E_INTERNAL : 0, "an event's number");
		if (publish_waits(get_be64(e.body.data)))
			oracle_blame(thread.sim->oracle,
				     "an event precedes the answer to its publish", number_of(link),
				     (int64_t)get_be64(e.body.data));
	}
}

static void on_frame(struct link *link, const struct frame_header *header, struct sluice_slice body)
{
	switch (header->type) {
	case FRAME_WELCOME:
		link->greeted = true;
		return;
	case FRAME_PUBLISHED:
		link->requests[header->corr % REQUESTS].what = NONE;
		oracle_thread_given(thread.sim->oracle, key_of_reply(link, header->corr));
		return;
	case FRAME_REPLY:
		on_reply(link, header->corr, body);
		return;
	case FRAME_NOTICE:
		on_notice(link, body);
		return;
	case FRAME_DELIVER:
		on_deliver(link, body);
		return;
	default: /* ERROR: the connection is closed */
		return;
	}
}

WRAP(void, conn_write, struct conn *conn, const void *bytes, size_t len)
{
	struct link *link = thread.sim != NULL ? link_of(conn) : NULL;
	struct frame_header header;
	const char *why = "";

	if (link == NULL || conn->dead)
		return;
	must(link->out_bytes + len > OUT_BYTES ? SLUICE_E_LIMIT : 0, "output of the thread");
	if (len > 0)
		memcpy(link->out + link->out_bytes, bytes, len);
	link->out_bytes += len;
	if (link->out_bytes < FRAME_HEADER_BYTES)
		return;
	must(frame_header_decode(link->out, OUT_BYTES, &header, &why), why);
	if (link->out_bytes < FRAME_HEADER_BYTES + header.body_bytes)
		return;
	must(link->out_bytes > FRAME_HEADER_BYTES + header.body_bytes ? SLUICE_E_INTERNAL : 0,
	     "a write of two frames");
	link->out_bytes = 0;
	on_frame(link, &header,
		 (struct sluice_slice){link->out + FRAME_HEADER_BYTES, header.body_bytes});
}

/* ---- what they send ---- */

static void send_frame(struct link *link, uint8_t *bytes, uint8_t type, uint32_t corr, size_t len)
{
	struct frame_header header = {.type = type, .corr = corr, .body_bytes = (uint32_t)len};

	frame_header_encode(bytes, &header);
	len += FRAME_HEADER_BYTES;
	if (link->conn->protocol->bytes(link->conn, bytes, len) != (long)len &&
	    !link->conn->closing)
		must(SLUICE_E_INTERNAL, "a frame was not taken");
	thread.sent = true;
}

static void send_request(struct link *link, enum what what, int job, const Sluice__Request *request)
{
	uint8_t bytes[1024];
	uint32_t corr = ++link->corr;

	/* An old wait: jobs that nobody ends. */
	if (link->requests[corr % REQUESTS].what != NONE)
		return;
	link->requests[corr % REQUESTS] = (struct request){what, job, 0};
	send_frame(link, bytes, FRAME_REQUEST, corr,
		   sluice__request__pack(request, bytes + FRAME_HEADER_BYTES));
}

static void send_hello(struct link *link)
{
	Sluice__Hello hello = SLUICE__HELLO__INIT;
	uint8_t bytes[256];

	hello.version_min = hello.version_max = 1;
	hello.client = (char *)"thread";
	send_frame(link, bytes, FRAME_HELLO, 0,
		   sluice__hello__pack(&hello, bytes + FRAME_HEADER_BYTES));
}

static void made_name(const struct link *link, uint32_t made, char name[32])
{
	(void)snprintf(name, 32, "thread-%d-%u", number_of(link), made);
}

static void send_publish(struct link *link)
{
	uint8_t bytes[256], event[64], number[sizeof(uint64_t)];
	struct envelope e = {.subject = text(""), .body = {number, sizeof(number)}};
	struct frame_publish f = {.target_kind = PUBLISH_TO_STREAM,
				  .count = 1,
				  .subject = text("thread"),
				  .target = text("t")};
	const struct link *followed = &thread.links[thread_roll(CONNS)];
	uint32_t corr = ++link->corr;
	char name[32];

	if (link->requests[corr % REQUESTS].what != NONE)
		return;
	/* One event for one stream: TICK deletes it again, and each commit has the thread publish
	 * less than one. */
	if (followed->follows && thread_roll(4) != 0) {
		made_name(followed, followed->followed, name);
		f.target = text(name);
	}
	put_be64(number, ++thread.sim->thread_events);
	f.payload = (struct sluice_slice){event, envelope_encode(event, &e)};
	f.raw_bytes = (uint32_t)f.payload.len;
	link->requests[corr % REQUESTS] = (struct request){COMMAND, 0, thread.sim->thread_events};
	send_frame(link, bytes, FRAME_PUBLISH, corr,
		   frame_publish_encode(bytes + FRAME_HEADER_BYTES, &f));
}

static void send_read(struct link *link)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__StreamShow stream = SLUICE__STREAM_SHOW__INIT;
	Sluice__QueueShow queue = SLUICE__QUEUE_SHOW__INIT;
	Sluice__JobShow job = SLUICE__JOB_SHOW__INIT;
	char id[16];

	switch (thread_roll(3)) {
	case 0:
		stream.name = (char *)"t";
		request.op_case = SLUICE__REQUEST__OP_STREAM_SHOW, request.stream_show = &stream;
		break;
	case 1:
		queue.name = (char *)"q";
		request.op_case = SLUICE__REQUEST__OP_QUEUE_SHOW, request.queue_show = &queue;
		break;
	default:
		(void)snprintf(id, sizeof(id), "j%d", thread.sim->slots[thread_roll(JOBS)]);
		job.job = id;
		request.op_case = SLUICE__REQUEST__OP_JOB_SHOW, request.job_show = &job;
		break;
	}
	send_request(link, READ, 0, &request);
}

static void send_wait(struct link *link)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobWait wait = SLUICE__JOB_WAIT__INIT;
	int job = thread.sim->slots[thread_roll(JOBS)];
	char id[16];

	(void)snprintf(id, sizeof(id), "j%d", job);
	wait.job = id;
	wait.timeout_ms = thread_roll(2) == 0 ? 0 : 1 + (uint32_t)thread_roll(WAIT_MS_MAX);
	request.op_case = SLUICE__REQUEST__OP_JOB_WAIT, request.job_wait = &wait;
	send_request(link, WAIT, job, &request);
}

/* A stream of its own: made, */
static void send_make(struct link *link)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	char name[32], subject[] = "thread";
	char *subjects[] = {subject};

	link->mades++;
	made_name(link, link->mades, name);
	config.name = name;
	config.subjects = subjects;
	config.n_subjects = 1;
	create.config = &config;
	request.op_case = SLUICE__REQUEST__OP_STREAM_CREATE, request.stream_create = &create;
	send_request(link, COMMAND, 0, &request);
}

/* followed, */
static void send_follow(struct link *link)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__FollowOpen open = SLUICE__FOLLOW_OPEN__INIT;
	char name[32];

	if (link->follows)
		return;
	link->followed = link->mades;
	link->follows = true;
	link->opened = false;
	made_name(link, link->mades, name);
	open.stream = name;
	open.subscription = link->mades;
	open.from = SLUICE__FOLLOW_FROM__FROM_FIRST;
	open.credit = FOLLOWED_CREDIT;
	request.op_case = SLUICE__REQUEST__OP_FOLLOW_OPEN, request.follow_open = &open;
	send_request(link, FOLLOW, 0, &request);
}

/* and deleted, which ends the subscription. */
static void send_delete(struct link *link)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__StreamDelete delete = SLUICE__STREAM_DELETE__INIT;
	char name[32];

	made_name(link, link->mades, name);
	delete.name = name;
	request.op_case = SLUICE__REQUEST__OP_STREAM_DELETE, request.stream_delete = &delete;
	send_request(link, COMMAND, 0, &request);
}

static void act(struct link *link)
{
	const uint64_t what = thread_roll(20);

	if (link->conn == NULL || link->conn->dead || link->conn->closing || link->conn->held)
		return;
	if (!link->greeted)
		send_hello(link);
	else if (what < 5)
		send_publish(link);
	else if (what < 13)
		send_read(link);
	else if (what < 15)
		send_wait(link);
	else if (what < 16)
		send_make(link);
	else if (what < 18)
		send_follow(link);
	else if (what < 19 && link->mades > 0)
		send_delete(link);
}

/* ---- its turn ---- */

static void links_reap(void)
{
	conns_reap(&thread.net->ios[0]);
	for (int i = 0; i < CONNS; i++) {
		struct link *link = &thread.links[i];

		if (link->conn != NULL && conn_find(&thread.net->ios[0], (uint64_t)i + 1) == NULL)
			link->conn = NULL;
	}
}

static void round_run(size_t releases)
{
	struct io *io = &thread.net->ios[0];

	for (size_t i = 0; i < releases && i < thread.queue_count; i++) {
		oracle_thread_handles(thread.sim->oracle);
		release_handle(io, thread.queue[i]);
	}
	if (releases > thread.queue_count)
		releases = thread.queue_count;
	thread.queue_count -= releases;
	memmove(thread.queue, thread.queue + releases, thread.queue_count * sizeof(*thread.queue));
	waits_due(io, io_now_ms());
	plants_round_end(io);
	readings_run(io);
	io->pump_cost = 0;
	subs_pump(io);
	links_reap();
}

static uint64_t index_now(void)
{
	struct store_txn *txn;
	uint64_t index;

	must(store_begin_read(thread.sim->store, &txn), "read");
	must(core_index_read(txn, 1, &index), "index");
	store_abort(txn);
	return index;
}

static void due_add(const struct engine_release *release, const struct effect *effect)
{
	struct io *io = &thread.net->ios[0];
	struct sub *sub;

	if (effect->kind == FX_REPLY && release->origins[effect->command].sink == &io->sink) {
		const struct pending *pending =
			(const struct pending *)(uintptr_t)release->origins[effect->command].tag;
		const struct link *link = pending->conn != NULL ? link_of(pending->conn) : NULL;

		if (link != NULL && (uint32_t)pending->tag != 0)
			oracle_thread_due(thread.sim->oracle,
					  key_of_reply(link, (uint32_t)pending->tag));
	}
	if (effect->kind != FX_STREAM_DELETED)
		return;
	for (sub = subs_of(io, DOOR_FOLLOW, effect->gateway, effect->id); sub != NULL;
	     sub = sub->peer_next)
		oracle_thread_due(thread.sim->oracle, key_of_end(link_of(sub->conn), sub->number));
}

static void on_thread_post(struct engine_sink *sink, struct engine_release *release)
{
	struct sim *s = thread.sim;

	if (s->answers_lost) {
		engine_release_done(s->engine, sink, release);
		return;
	}
	faults_pause(s);
	oracle_thread_posted(s->oracle, index_now());
	for (size_t i = 0; i < effects_count(release->effects); i++)
		due_add(release, effects_at(release->effects, i));
	must(thread.queue_count == QUEUE_MAX ? SLUICE_E_LIMIT : 0, "releases of the thread");
	thread.queue[thread.queue_count++] = release;
	thread_turn(s);
	faults_resume(s);
}

void thread_turn(struct sim *s)
{
	thread.sent = false;
	for (uint64_t n = thread_roll(4); n > 0; n--)
		act(&thread.links[thread_roll(CONNS)]);
	if (thread_roll(2) == 0)
		round_run(thread_roll(thread.queue_count + 1));
	s->answers = s->answers || thread.sent;
}

/* Jobs that do not exist count as ended. */
static bool job_ended(struct sim *s, int number)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow job = SLUICE__JOB_SHOW__INIT;
	struct query_clock clock = {s->now.mono_ms, s->now.wall_ms};
	struct store_txn *txn;
	uint8_t *packed = NULL;
	size_t bytes = 0;
	Sluice__Reply *reply;
	bool ended;
	char id[16];

	(void)snprintf(id, sizeof(id), "j%d", number);
	job.job = id;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW, request.job_show = &job;
	must(store_begin_read(s->store, &txn), "read");
	must(core_query(txn, 1, clock, &request, &packed, &bytes), "query");
	store_abort(txn);
	reply = sluice__reply__unpack(NULL, bytes, packed);
	free(packed);
	must(reply == NULL ? SLUICE_E_NOMEM : 0, "reply");
	ended = reply->n_jobs == 0 || reply->jobs[0]->terminal;
	sluice__reply__free_unpacked(reply, NULL);
	return ended;
}

/* Without waits for jobs that go on. */
static uint64_t unanswered(struct sim *s, const struct link *link)
{
	uint64_t count = 0;

	for (int i = 0; i < REQUESTS; i++) {
		const struct request *request = &link->requests[i];

		count += request->what != NONE &&
			 (request->what != WAIT || job_ended(s, request->job));
	}
	return link->conn != NULL ? count : 0;
}

void thread_rest(struct sim *s)
{
	uint64_t waits = 0;

	faults_pause(s);
	while (thread.queue_count > 0)
		round_run(1 + thread_roll(thread.queue_count));
	for (int i = 0; i < REST_ROUNDS; i++)
		round_run(0);
	for (int i = 0; i < CONNS; i++)
		waits += unanswered(s, &thread.links[i]);
	faults_resume(s);
	oracle_thread_at_rest(s->oracle, waits);
}

/* ---- its life ---- */

void thread_begin(struct sim *s)
{
	const struct net_config config = {.io_threads = 1};
	const struct arrival arrival = {.protocol = &native_protocol, .fd = -1};
	struct io *io;

	memset(thread.links, 0, sizeof(thread.links));
	thread.random = s->random;
	thread.sim = s;
	must(net_create(&config, s->engine, &thread.net), "net");
	io = &thread.net->ios[0];
	io->sink.post = on_thread_post;
	oracle_thread_began(s->oracle, index_now());
	for (int i = 0; i < CONNS; i++) {
		atomic_fetch_add(&thread.net->connections, 1);
		thread.links[i].conn = conn_create(io, &arrival);
		must(thread.links[i].conn == NULL ? SLUICE_E_NOMEM : 0, "a connection");
	}
}

void thread_end(struct sim *s)
{
	if (thread.sim == NULL)
		return;
	for (size_t i = 0; i < thread.queue_count; i++)
		engine_release_done(s->engine, &thread.net->ios[0].sink, thread.queue[i]);
	thread.queue_count = 0;
	memset(thread.links, 0, sizeof(thread.links));
	net_destroy(thread.net);
	thread.net = NULL;
	thread.sim = NULL;
}
