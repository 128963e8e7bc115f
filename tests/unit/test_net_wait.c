/* SPDX-License-Identifier: Apache-2.0
 * Waits for jobs: the beginning of one has its turn among the reads. tests/integration/test_line.py
 * has their ends. */
#include <stdio.h>
#include <string.h>

#include "broker/net/conn/door.h"
#include "tests/unit/net_rig.h"

/* ---- a protocol: each byte runs `act` ---- */

enum { ANSWERS_MAX = 4 };

static void (*act)(struct conn *conn);
static unsigned answered;
static struct {
	uint64_t tag;
	int code;
	bool has_reply;
	char text[512];
} answers[ANSWERS_MAX];

static const char *name(const struct conn *conn)
{
	(void)conn;
	return "waits";
}

static int accept_it(struct conn *conn)
{
	return door_enter(conn, (struct sluice_slice){"default", 7});
}

static long bytes(struct conn *conn, const void *bytes, size_t len)
{
	(void)bytes;
	act(conn);
	return (long)len;
}

static void waited(struct conn *conn, uint64_t tag, const struct job_waited *result)
{
	(void)conn;
	cr_assert_lt(answered, ANSWERS_MAX);
	answers[answered].tag = tag;
	answers[answered].code = result->code;
	answers[answered].has_reply = result->reply != NULL && result->len > 0;
	(void)snprintf(answers[answered].text, sizeof(answers->text), "%s", result->text);
	answered++;
}

static const struct protocol_ops waits = {.name = name,
					  .accept = accept_it,
					  .bytes = bytes,
					  .waited = waited};

static void run(struct rig *rig, void (*what)(struct conn *conn))
{
	rig_open_as(rig, &waits, NULL);
	answered = 0;
	act = what;
	cr_assert_eq(write(rig->fd, "x", 1), 1);
	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
}

/* The id is not kept by the caller. */
static void wait_for(struct conn *conn, uint64_t tag, const char *id, size_t len)
{
	char job[512];

	memcpy(job, id, len);
	cr_assert_eq(door_job_wait(conn, tag, (struct sluice_slice){job, len}, 0, 0), 0);
	memset(job, 'x', len);
}

/* The reads of this round have cost so much that these wait for the next one. */
static void in_the_next_round(struct conn *conn)
{
	static const char long_id[300] = {'a'};

	conn->io->round_cost = UINT64_MAX / 2;
	wait_for(conn, 7, "first", 5);
	wait_for(conn, 8, long_id, sizeof(long_id));
	wait_for(conn, 9, "", 0);
	cr_assert_eq(answered, 0u, "not in this call");
	cr_assert_eq(conn->pending_count, 3u);
	cr_assert_gt(conn->pending_bytes, 5u + sizeof(long_id), "they count, with their ids");
}

Test(net_wait, begins_behind_the_reads_before_it_with_its_own_id)
{
	struct rig rig;

	run(&rig, in_the_next_round);
	for (int n = 0; n < 5; n++)
		turn(&rig);
	cr_assert_eq(answered, 3u);
	cr_expect_eq(answers[0].tag, 7u);
	cr_expect_eq(answers[0].code, SLUICE_E_NOT_FOUND);
	cr_expect(answers[0].has_reply);
	cr_expect_not_null(strstr(answers[0].text, "first"), "%s", answers[0].text);
	cr_expect_eq(answers[1].tag, 8u);
	cr_expect_eq(answers[1].code, SLUICE_E_LIMIT);
	cr_expect_not(answers[1].has_reply);
	cr_expect_eq(answers[2].tag, 9u);
	cr_expect_eq(answers[2].code, SLUICE_E_NOT_FOUND);
	cr_expect_eq(rig.net->ios[0].conns->pending_count, 0u);
	cr_expect_eq(rig.net->ios[0].conns->waiter_count, 0u);
	rig_close(&rig);
}

static void and_ends(struct conn *conn)
{
	in_the_next_round(conn);
	door_abort(conn, "it ends");
	cr_expect_eq(door_job_wait(conn, 10, (struct sluice_slice){"last", 4}, 0, 0),
		     SLUICE_E_CLOSED);
}

Test(net_wait, one_that_has_not_begun_ends_with_its_connection)
{
	struct rig rig;

	run(&rig, and_ends);
	for (int n = 0; n < 5; n++)
		turn(&rig);
	cr_expect_null(rig.net->ios[0].conns);
	cr_expect_eq(answered, 0u);
	rig_close(&rig);
}

static void without_text(struct conn *conn)
{
	wait_for(conn, 1, "a\0b", 3);
	wait_for(conn, 2, "\xff", 1);
}

Test(net_wait, is_refused_an_id_that_is_no_text)
{
	struct rig rig;

	run(&rig, without_text);
	cr_assert_eq(answered, 2u, "at once");
	for (unsigned n = 0; n < 2; n++) {
		cr_expect_eq(answers[n].tag, n + 1);
		cr_expect_eq(answers[n].code, SLUICE_E_INVAL);
		cr_expect_not(answers[n].has_reply);
	}
	rig_close(&rig);
}
