/* SPDX-License-Identifier: Apache-2.0
 * Producers: open, close, the check of a sequence and the memory of its answer. See producer.h. */
#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/base/timer.h"
#include "broker/core/publish/producer.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* Cell: u32 epoch, u64 last sequence, u64 monotone time of the last use, u16 answers, u8 name bytes, name,
 * answers, u64 session that owns it, u64 secret. Answer: u64 first sequence, u32 count, i32 code, u64 index, u64 offset, u32 failed
 * operation (transactions).
 *
 * A cell without the last two is of a broker that did not know owners: read as owner 0, which is "not owned", and secret 0, which is
 * none. The first session that uses it, with its number and epoch, owns it from then on. */
enum { CELL_FIXED_BYTES = 4 + 8 + 8 + 2 + 1, ANSWER_BYTES = 8 + 4 + 4 + 8 + 8 + 4, CELL_OWNER_BYTES = 8 + 8 };

struct cell {
	uint32_t epoch;
	uint64_t last_seq;
	uint64_t used_mono_ms;
	uint16_t answer_count;
	struct sluice_slice name;
	const uint8_t *answers;
	uint64_t owner;	 /* session; 0: nobody's yet */
	uint64_t secret; /* 0: none */
};

static int cell_get(struct apply *a, uint64_t producer, struct cell *ret)
{
	struct sluice_slice value;
	const uint8_t *at;
	struct key key;
	size_t old;
	int rc;

	key_hot(&key, a->gateway, HOT_PRODUCER, producer);
	rc = store_get(a->txn, STORE_HOT, key_slice(&key), &value);
	if (rc != 0)
		return rc;
	at = value.data;
	if (value.len < CELL_FIXED_BYTES)
		return store_damaged("its content is not valid");
	old = CELL_FIXED_BYTES + at[22] + (size_t)get_be16(at + 20) * ANSWER_BYTES;
	if (value.len != old && value.len != old + CELL_OWNER_BYTES)
		return store_damaged("its content is not valid");
	*ret = (struct cell){.epoch = get_be32(at),
			     .last_seq = get_be64(at + 4),
			     .used_mono_ms = get_be64(at + 12),
			     .answer_count = get_be16(at + 20),
			     .name = {at + CELL_FIXED_BYTES, at[22]},
			     .answers = at + CELL_FIXED_BYTES + at[22]};
	if (value.len != old) {
		ret->owner = get_be64(at + old);
		ret->secret = get_be64(at + old + 8);
	}
	return 0;
}

static uint64_t answer_last(const uint8_t *answer)
{
	return get_be64(answer) + get_be32(answer + 8) - 1;
}

/* Answers are in order of their numbers: what is settled comes first. How many of them. */
static uint16_t settled_count(const struct cell *cell, uint64_t settled_seq)
{
	uint16_t count = 0;

	while (count < cell->answer_count &&
	       answer_last(cell->answers + (size_t)count * ANSWER_BYTES) <= settled_seq)
		count++;
	return count;
}

/* Stores the cell without the answers up to settled_seq, and with one more when `answer` is given. */
static int cell_put(struct apply *a, uint64_t producer, const struct cell *cell, uint64_t settled_seq,
		    const uint8_t *answer)
{
	struct scratch *scratch = &a->core->answers;
	uint16_t settled = settled_count(cell, settled_seq), count = cell->answer_count - settled;
	struct key key;
	uint8_t *at;
	int rc = scratch_reserve(scratch, CELL_FIXED_BYTES + 255 +
						  ((size_t)cell->answer_count + 1) * ANSWER_BYTES +
						  CELL_OWNER_BYTES);

	if (rc != 0)
		return rc;
	at = scratch->data + CELL_FIXED_BYTES;
	if (cell->name.len > 0)
		memcpy(at, cell->name.data, cell->name.len);
	at += cell->name.len;
	if (count > 0)
		memcpy(at, cell->answers + (size_t)settled * ANSWER_BYTES, (size_t)count * ANSWER_BYTES);
	at += (size_t)count * ANSWER_BYTES;
	if (answer != NULL) {
		memcpy(at, answer, ANSWER_BYTES);
		at += ANSWER_BYTES;
		count++;
	}
	invariant(cell->epoch > 0 && cell->name.len <= 255, "producer %llu: epoch %u, a name of %zu bytes",
		  ULL(producer), cell->epoch, cell->name.len);
	invariant(count <= LIMIT_PRODUCER_UNSETTLED_MAX, "producer %llu: %u answers", ULL(producer), count);
	invariant(count == 0 || answer_last(at - ANSWER_BYTES) <= cell->last_seq,
		  "producer %llu: the last answer is %llu, the last number %llu", ULL(producer),
		  ULL(answer_last(at - ANSWER_BYTES)), ULL(cell->last_seq));
	put_be64(at, cell->owner);
	put_be64(at + 8, cell->secret);
	at += CELL_OWNER_BYTES;
	put_be32(scratch->data, cell->epoch);
	put_be64(scratch->data + 4, cell->last_seq);
	put_be64(scratch->data + 12, a->mono_ms);
	put_be16(scratch->data + 20, count);
	scratch->data[22] = (uint8_t)cell->name.len;
	key_hot(&key, a->gateway, HOT_PRODUCER, producer);
	return store_put(a->txn, STORE_HOT, key_slice(&key),
			 (struct sluice_slice){scratch->data, (size_t)(at - scratch->data)});
}

/* ---- open, close, eviction ---- */

/* The session that asks has it from now on, under an epoch of its own: what others still send under theirs is refused. */
static int take(struct apply *a, struct cell *cell, uint64_t producer, struct outcome *out)
{
	if (cell->epoch == UINT32_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the producer's epochs are used up; close it");
	cell->epoch++;
	cell->owner = a->session;
	out->id = producer;
	out->epoch = cell->epoch;
	out->seq = cell->last_seq;
	out->offset = cell->secret;
	return cell_put(a, producer, cell, 0, NULL);
}

static int open_named(struct apply *a, struct sluice_slice name, struct outcome *out)
{
	struct cell cell;
	uint64_t producer;
	int rc = name_find(a->txn, a->gateway, NAME_PRODUCER, name, &producer);

	if (rc != 0)
		return rc;
	rc = cell_get(a, producer, &cell);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	/* The name says who it is. Who had it until now cannot take it back but by the name, too. */
	cell.secret = a->random;
	return take(a, &cell, producer, out);
}

/* A client whose session ended goes on with the producer that it had: the secret says that it is the same client. Repeated, when the first
 * answer was lost, it does nothing more. */
static int open_expected(struct apply *a, const Sluice__ProducerOpen *m, struct outcome *out)
{
	struct cell cell;
	int rc = cell_get(a, m->expect_producer, &cell);

	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && (cell.name.len != strlen(m->name) ||
						     memcmp(cell.name.data, m->name, cell.name.len) != 0)))
		return refuse(out, SLUICE_E_PRODUCER_EVICTED,
			      "there is no such producer %llu (any more); open another",
			      (unsigned long long)m->expect_producer);
	if (rc != 0)
		return rc;
	if ((cell.secret == 0 || cell.secret != m->secret) && cell.name.len > 0)
		return refuse(out, SLUICE_E_PRODUCER_FENCED,
			      "producer '%.200s' was opened again by another client; its epoch is %u",
			      m->name, cell.epoch);
	if (cell.secret == 0 || cell.secret != m->secret)
		return refuse(
			out, SLUICE_E_OWNED,
			"producer %llu is another client's: the secret is not the one that its opening gave",
			(unsigned long long)m->expect_producer);
	if (cell.owner != a->session)
		return take(a, &cell, m->expect_producer, out);
	out->id = m->expect_producer;
	out->epoch = cell.epoch;
	out->seq = cell.last_seq;
	out->offset = cell.secret;
	return 0;
}

int producer_open_apply(struct apply *a, const Sluice__ProducerOpen *m, struct outcome *out)
{
	struct cell cell = {.epoch = 1,
			    .name = {m->name, strlen(m->name)},
			    .owner = a->session,
			    .secret = a->random};
	const char *why = NULL;
	int rc;

	out->kind = OUT_PRODUCER;
	if (cell.name.len > 0) {
		rc = name_check(cell.name, &why);
		if (rc != 0)
			return refuse(out, rc, "producer name: %s", why);
	}
	if (m->expect_producer != 0)
		return open_expected(a, m, out);
	if (cell.name.len > 0) {
		rc = open_named(a, cell.name, out);
		if (rc != SLUICE_E_NOT_FOUND)
			return rc;
	}
	rc = counter_next(a, COUNTER_PRODUCER, &out->id);
	if (rc == 0 && cell.name.len > 0)
		rc = name_put(a, NAME_PRODUCER, cell.name, out->id);
	if (rc == 0 && cell.name.len == 0)
		rc = timer_set(a, a->mono_ms + LIMIT_PRODUCER_IDLE_MS, TIMER_PRODUCER_IDLE, out->id, 0);
	out->epoch = cell.epoch;
	out->offset = cell.secret;
	return rc != 0 ? rc : cell_put(a, out->id, &cell, 0, NULL);
}

/* For its owner: numbers and epochs are no secret, so by themselves they give nobody a right. */
static int cell_of_caller(struct apply *a, uint64_t producer, uint32_t epoch, struct cell *ret,
			  struct outcome *out)
{
	int rc = cell_get(a, producer, ret);

	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_PRODUCER_EVICTED,
			      "producer %llu is not known (any more); open another",
			      (unsigned long long)producer);
	if (rc != 0)
		return rc;
	if (epoch < ret->epoch)
		return refuse(out, SLUICE_E_PRODUCER_FENCED,
			      "producer %llu was opened again: epoch %u was given, it is at %u",
			      (unsigned long long)producer, epoch, ret->epoch);
	if (epoch > ret->epoch)
		return refuse(out, SLUICE_E_INVAL,
			      "epoch %u of producer %llu was never given out; it is at %u", epoch,
			      (unsigned long long)producer, ret->epoch);
	if (ret->owner != 0 && ret->owner != a->session)
		return refuse(
			out, SLUICE_E_OWNED,
			"producer %llu belongs to another session: use the session that opened it, or open it "
			"again (a named one by its name, any by its number and secret)",
			(unsigned long long)producer);
	return 0;
}

int producer_close_apply(struct apply *a, const Sluice__ProducerClose *m, struct outcome *out)
{
	struct cell cell;
	struct key key;
	int rc = cell_of_caller(a, m->producer, m->epoch, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	if (cell.name.len > 0) {
		key_name(&key, a->gateway, NAME_PRODUCER, cell.name);
		rc = store_del(a->txn, STORE_NAME, key_slice(&key));
	}
	key_hot(&key, a->gateway, HOT_PRODUCER, m->producer);
	return rc != 0 ? rc : store_del(a->txn, STORE_HOT, key_slice(&key));
}

/* Unnamed producers only: a name is somebody's, and stays. */
int producer_idle_fire(struct apply *a, uint64_t producer, uint64_t sub, uint32_t *io_work)
{
	uint64_t idle;
	struct cell cell;
	struct key key;
	int rc = cell_get(a, producer, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	idle = age_of_mono(a, cell.used_mono_ms);
	if (idle < LIMIT_PRODUCER_IDLE_MS)
		return timer_set(a, a->mono_ms + LIMIT_PRODUCER_IDLE_MS - idle, TIMER_PRODUCER_IDLE, producer,
				 0);
	if (age_doubt(a) != 0)
		return timer_set(a, age_doubt(a), TIMER_PRODUCER_IDLE, producer, 0);
	key_hot(&key, a->gateway, HOT_PRODUCER, producer);
	return store_del(a->txn, STORE_HOT, key_slice(&key));
}

/* ---- sequence ---- */

static int answer_again(const struct cell *cell, const struct producer_call *call, struct outcome *out)
{
	for (uint16_t i = cell->answer_count; i > 0; i--) {
		const uint8_t *answer = cell->answers + (size_t)(i - 1) * ANSWER_BYTES;
		int code;

		if (get_be64(answer) != call->first_seq)
			continue;
		if (get_be32(answer + 8) != call->count)
			break;
		code = (int)get_be32(answer + 12);
		out->duplicate = true;
		out->index = get_be64(answer + 16);
		out->offset = get_be64(answer + 24);
		if (out->kind == OUT_TXN)
			out->count = get_be32(answer + 32);
		return code == 0 ? 0 : refuse(out, code, "refused before: %s", sluice_error_text(code));
	}
	return refuse(
		out, SLUICE_E_CONFLICT,
		"sequence numbers up to %llu were used: this call is settled, or differs from the first",
		(unsigned long long)cell->last_seq);
}

int producer_begin(struct apply *a, const struct producer_call *call, struct outcome *out)
{
	unsigned unsettled;
	uint64_t expected;
	struct cell cell;
	int rc = cell_of_caller(a, call->producer, call->epoch, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	if (call->first_seq == 0 || call->count == 0 || call->first_seq > UINT64_MAX - call->count ||
	    call->settled_seq >= call->first_seq)
		return refuse(out, SLUICE_E_INVAL,
			      "sequence %llu, %u numbers, settled %llu: expected settled < sequence, from 1",
			      (unsigned long long)call->first_seq, call->count,
			      (unsigned long long)call->settled_seq);
	if (call->first_seq <= cell.last_seq)
		return answer_again(&cell, call, out);
	expected = (cell.last_seq > call->settled_seq ? cell.last_seq : call->settled_seq) + 1;
	if (call->first_seq != expected)
		return refuse(out, SLUICE_E_SEQUENCE_GAP, "sequence %llu came, %llu was expected",
			      (unsigned long long)call->first_seq, (unsigned long long)expected);
	unsettled = cell.answer_count - settled_count(&cell, call->settled_seq);
	if (unsettled >= LIMIT_PRODUCER_UNSETTLED_MAX)
		return refuse(out, SLUICE_E_BUSY, "%u answers of this producer are not settled; at most %llu",
			      unsettled, (unsigned long long)LIMIT_PRODUCER_UNSETTLED_MAX);
	return 0;
}

int producer_end(struct apply *a, const struct producer_call *call, const struct outcome *out)
{
	uint8_t answer[ANSWER_BYTES];
	struct cell cell;
	int rc;

	if (refused(out) && sluice_error_retriable(out->code))
		return 0;
	rc = cell_get(a, call->producer, &cell);
	if (rc != 0)
		return rc;
	put_be64(answer, call->first_seq);
	put_be32(answer + 8, call->count);
	put_be32(answer + 12, (uint32_t)out->code);
	put_be64(answer + 16, out->index);
	put_be64(answer + 24, out->offset);
	put_be32(answer + 32, out->kind == OUT_TXN ? out->count : 0);
	invariant(call->first_seq > cell.last_seq && cell.epoch == call->epoch,
		  "producer %llu: sequence %llu after %llu, epoch %u of %u",
		  (unsigned long long)call->producer, (unsigned long long)call->first_seq,
		  (unsigned long long)cell.last_seq, call->epoch, cell.epoch);
	cell.last_seq = call->first_seq + call->count - 1;
	cell.owner = a->session;
	return cell_put(a, call->producer, &cell, call->settled_seq, answer);
}
