/* SPDX-License-Identifier: Apache-2.0
 * The same bytes, cut at random places, give the same frames: whatever a protocol asks for, takes,
 * holds back and leaves, and however little memory there is. */
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/bufs.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

enum {
	SEEDS = 40,
	FRAMES = 60,
	SMALL_BYTES = 300,
	FRAME_BYTES_MOST = 1 << 19,
	STREAM_BYTES = 12 << 20,
	TAKEN = 16,
	LENGTH_BYTES = 4,
};

/* A generator of our own: a failure is found again by its seed. */
static uint32_t random_next(uint32_t *io)
{
	*io = *io * 1664525u + 1013904223u;
	return *io >> 8;
}

static bool one_in(uint32_t *io, uint32_t n)
{
	return random_next(io) % n == 0;
}

/* ---- the frames: u32 length, bytes that depend on number and position ---- */

static uint8_t stream[STREAM_BYTES];

static uint8_t byte_of(uint32_t frame, size_t at)
{
	return (uint8_t)((frame * 31u + (uint32_t)at) * 2654435761u >> 11);
}

static size_t stream_make(uint32_t *io_seed)
{
	size_t used = 0;

	for (uint32_t n = 0; n < FRAMES; n++) {
		size_t most = one_in(io_seed, 4) ? FRAME_BYTES_MOST : SMALL_BYTES,
		       len = random_next(io_seed) % most;

		if (used + LENGTH_BYTES + len > sizeof(stream))
			len = 0;
		for (int b = 0; b < LENGTH_BYTES; b++)
			stream[used++] = (uint8_t)(len >> (24 - 8 * b));
		for (size_t i = 0; i < len; i++)
			stream[used++] = byte_of(n, i);
	}
	return used;
}

/* ---- a protocol that does anything that it may ---- */

static struct cutter {
	struct conn *conn;
	uint32_t seed, frames;
	bool held;
	size_t wanted;
	uint64_t takes, holds, busy;
	struct {
		struct door_buf *buf;
		struct sluice_slice part;
		uint32_t frame;
	} taken[TAKEN];
} cutter;

static void is_frame(uint32_t frame, struct sluice_slice part)
{
	const uint8_t *bytes = part.data;

	for (size_t i = 0; i < part.len; i++)
		cr_assert_eq(bytes[i], byte_of(frame, i), "frame %u, byte %zu of %zu", frame, i,
			     part.len);
}

static void drop(int i)
{
	if (cutter.taken[i].buf != NULL)
		is_frame(cutter.taken[i].frame, cutter.taken[i].part);
	door_buf_unref(cutter.taken[i].buf);
	cutter.taken[i].buf = NULL;
}

static int maybe_take(struct sluice_slice part)
{
	int i = (int)(random_next(&cutter.seed) % TAKEN), rc;

	if (!one_in(&cutter.seed, 3))
		return 0;
	drop(i);
	cutter.taken[i].part = part;
	cutter.taken[i].frame = cutter.frames;
	rc = door_buf_take(cutter.conn, &cutter.taken[i].buf, &cutter.taken[i].part);
	if (rc != 0) {
		cr_assert_eq(rc, SLUICE_E_BUSY);
		cutter.taken[i].buf = NULL;
		cutter.busy++;
		/* What it holds is what it waits for. */
		drop((int)(random_next(&cutter.seed) % TAKEN));
		return rc;
	}
	cutter.takes++;
	return 0;
}

static void asks(size_t bytes)
{
	cutter.wanted = bytes;
	door_want(cutter.conn, bytes);
}

static const char *cutter_name(const struct conn *conn)
{
	(void)conn;
	return "cutter";
}

static int cutter_accept(struct conn *conn)
{
	cutter.conn = conn;
	return 0;
}

static long cutter_bytes(struct conn *conn, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	size_t used = 0;

	cr_assert(!cutter.held, "it is held");
	cr_assert_geq(len, cutter.wanted, "%zu bytes, %zu were asked for", len, cutter.wanted);
	asks(0);
	while (len - used >= LENGTH_BYTES) {
		size_t frame = (size_t)at[used] << 24 | (size_t)at[used + 1] << 16 |
			       (size_t)at[used + 2] << 8 | at[used + 3];
		struct sluice_slice part = {at + used + LENGTH_BYTES, frame};

		if (len - used < LENGTH_BYTES + frame) {
			/* All of it, a part of it, or no word about it. */
			if (one_in(&cutter.seed, 3))
				asks(len - used + 1 +
				     random_next(&cutter.seed) %
					     (LENGTH_BYTES + frame - (len - used)));
			else if (!one_in(&cutter.seed, 8))
				asks(LENGTH_BYTES + frame);
			break;
		}
		is_frame(cutter.frames, part);
		if (maybe_take(part) != 0)
			break;
		used += LENGTH_BYTES + frame;
		cutter.frames++;
		if (one_in(&cutter.seed, 10)) {
			cutter.held = true;
			cutter.holds++;
			door_hold(conn, true);
			break;
		}
		if (one_in(&cutter.seed, 5))
			break;
	}
	return (long)used;
}

static void cutter_closed(struct conn *conn)
{
	(void)conn;
}

static const struct protocol_ops cutter_protocol = {
	.name = cutter_name,
	.accept = cutter_accept,
	.bytes = cutter_bytes,
	.closed = cutter_closed,
};

/* ---- the test ---- */

static void cut(uint32_t seed, uint64_t input_bytes_max)
{
	struct rig rig;
	size_t len, sent = 0;

	cutter = (struct cutter){.seed = seed};
	len = stream_make(&cutter.seed);
	rig_open_as(&rig, &cutter_protocol, NULL);
	cutter.conn->gateway = 1; /* as after door_enter */
	rig.net->config.input_bytes_max = input_bytes_max;
	for (int n = 0; n < 200000 && cutter.frames < FRAMES; n++) {
		size_t most = one_in(&cutter.seed, 3) ? 8 : 1 << 18;
		size_t piece = 1 + random_next(&cutter.seed) % most;

		if (piece > len - sent)
			piece = len - sent;
		if (piece > 0) {
			ssize_t put = write(rig.fd, stream + sent, piece);

			sent += put > 0 ? (size_t)put : 0;
		}
		if (one_in(&cutter.seed, 2) || piece == 0)
			turn(&rig);
		if (cutter.held && one_in(&cutter.seed, 4)) {
			cutter.held = false;
			door_hold(cutter.conn, false);
		}
		if (one_in(&cutter.seed, 8)) {
			drop((int)(random_next(&cutter.seed) % TAKEN));
			event_active(rig.net->ios[0].timer, EV_TIMEOUT, 0);
			turn(&rig);
		}
		cr_assert_not_null(rig.net->ios[0].conns, "seed %u: it was closed", seed);
	}
	cr_assert_eq(cutter.frames, FRAMES, "seed %u: %u frames", seed, cutter.frames);
	cr_assert_eq(sent, len, "seed %u", seed);
	for (int i = 0; i < TAKEN; i++)
		drop(i);
	event_active(rig.net->ios[0].timer, EV_TIMEOUT, 0);
	turn(&rig);
	cr_assert_eq(atomic_load(&rig.net->input), 0u, "seed %u: memory is left", seed);
	rig_close(&rig);
}

static void cuts(uint64_t input_bytes_max, uint64_t *ret_busy)
{
	uint64_t takes = 0, holds = 0;

	*ret_busy = 0;
	for (uint32_t seed = 1; seed <= SEEDS; seed++) {
		cut(seed, input_bytes_max);
		takes += cutter.takes;
		holds += cutter.holds;
		*ret_busy += cutter.busy;
	}
	cr_expect_gt(takes, (uint64_t)SEEDS);
	cr_expect_gt(holds, (uint64_t)SEEDS);
}

Test(net_cuts, the_same_bytes_give_the_same_frames)
{
	uint64_t busy;

	cuts(0, &busy);
	cr_expect_eq(busy, 0u);
}

Test(net_cuts, also_when_there_is_little_memory)
{
	uint64_t busy;

	cuts(FRAME_BYTES_MOST, &busy);
	cr_expect_gt(busy, 0u, "memory was refused");
}
