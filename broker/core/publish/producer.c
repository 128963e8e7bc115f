/* SPDX-License-Identifier: Apache-2.0
 * Producers: open, close, the check of a sequence number and the stored answers. See producer.h. */
#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/base/timer.h"
#include "broker/core/publish/producer.h"
#include "broker/core/publish/producer_cell.h"
#include "broker/core/session/session.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

static int cell_get(struct apply *a, uint64_t producer, struct producer_cell *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot(&key, a->gateway, HOT_PRODUCER, producer);
	rc = store_get(a->txn, STORE_HOT, key_slice(&key), &value);
	return rc != 0 ? rc : producer_cell_decode(value, ret);
}

/* The last number of the answer at this position. */
static uint64_t answer_last(const struct producer_cell *cell, size_t at)
{
	struct producer_answer answer;

	producer_answer_decode(cell->answers + at * PRODUCER_ANSWER_BYTES, &answer);
	return answer.first_seq + answer.count - 1;
}

/* How many answers are settled: answers are ordered by number, so settled ones come first. */
static uint16_t settled_count(const struct producer_cell *cell, uint64_t settled_seq)
{
	uint16_t count = 0;

	while (count < cell->answer_count && answer_last(cell, count) <= settled_seq)
		count++;
	return count;
}

/* Stores the cell without the answers up to settled_seq, and with one more if `more` is given. */
static int cell_put(struct apply *a, uint64_t producer, const struct producer_cell *cell,
		    uint64_t settled_seq, const struct producer_answer *more)
{
	struct scratch *scratch = &a->core->answers;
	uint16_t settled = settled_count(cell, settled_seq), count = cell->answer_count - settled;
	uint64_t last = more != NULL ? more->first_seq + more->count - 1
			: count > 0  ? answer_last(cell, cell->answer_count - 1u)
				     : 0;
	struct producer_cell kept = *cell;
	struct key key;
	size_t bytes;
	int rc;

	kept.answer_count = count;
	if (settled > 0)
		kept.answers += (size_t)settled * PRODUCER_ANSWER_BYTES;
	kept.used_mono_ms = a->mono_ms;
	count += more != NULL;
	invariant(cell->epoch > 0 && cell->name.len <= 255,
		  "producer %llu: epoch %u, a name of %zu bytes", ULL(producer), cell->epoch,
		  cell->name.len);
	invariant(count <= LIMIT_PRODUCER_UNSETTLED_MAX, "producer %llu: %u answers", ULL(producer),
		  count);
	invariant(last <= cell->last_seq,
		  "producer %llu: the last answer is %llu, the last number %llu", ULL(producer),
		  ULL(last), ULL(cell->last_seq));
	rc = scratch_reserve(scratch, producer_cell_bytes(&kept) + PRODUCER_ANSWER_BYTES);
	if (rc != 0)
		return rc;
	bytes = producer_cell_encode(scratch->data, &kept, more);
	key_hot(&key, a->gateway, HOT_PRODUCER, producer);
	return store_put(a->txn, STORE_HOT, key_slice(&key),
			 (struct sluice_slice){scratch->data, bytes});
}

/* ---- open, close, eviction ---- */

/* The caller's session becomes the owner. If it has no principal, or has ended, the last one known
 * stays. The text is borrowed until the next write. */
static int owner_set(struct apply *a, struct producer_cell *cell)
{
	struct session session;
	int rc = session_get(a->txn, a->gateway, a->session, &session);

	cell->owner = a->session;
	if (rc == 0 && level_is(a, 1) && session.principal.len > 0)
		cell->principal = session.principal;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* Makes the caller's session the owner, with a new epoch: publishes under the old epoch are
 * refused. */
static int take(struct apply *a, struct producer_cell *cell, uint64_t producer, struct outcome *out)
{
	int rc;

	if (cell->epoch == UINT32_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the producer's epochs are used up; close it");
	cell->epoch++;
	rc = owner_set(a, cell);
	out->id = producer;
	out->epoch = cell->epoch;
	out->seq = cell->last_seq;
	out->offset = cell->secret;
	return rc != 0 ? rc : cell_put(a, producer, cell, 0, NULL);
}

static int open_named(struct apply *a, struct sluice_slice name, struct outcome *out)
{
	struct producer_cell cell;
	uint64_t producer;
	int rc = name_find(a->txn, a->gateway, NAME_PRODUCER, name, &producer);

	if (rc != 0)
		return rc;
	rc = cell_get(a, producer, &cell);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	/* The name identifies the client. The previous owner can take it back only by the name,
	 * too. */
	cell.secret = a->random;
	return take(a, &cell, producer, out);
}

/* A client whose session ended continues with its producer: the secret identifies the client. A
 * retry after a lost answer has no further effect. */
static int open_expected(struct apply *a, const Sluice__ProducerOpen *m, struct outcome *out)
{
	struct producer_cell cell;
	int rc = cell_get(a, m->expect_producer, &cell);

	if (rc == SLUICE_E_NOT_FOUND ||
	    (rc == 0 && (cell.name.len != strlen(m->name) ||
			 memcmp(cell.name.data, m->name, cell.name.len) != 0)))
		return refuse(out, SLUICE_E_PRODUCER_EVICTED,
			      "producer %llu does not exist (any more); open another",
			      (unsigned long long)m->expect_producer);
	if (rc != 0)
		return rc;
	if ((cell.secret == 0 || cell.secret != m->secret) && cell.name.len > 0)
		return refuse(out, SLUICE_E_PRODUCER_FENCED,
			      "producer '%.200s' was opened again by another client; its epoch is "
			      "%u",
			      m->name, cell.epoch);
	if (cell.secret == 0 || cell.secret != m->secret)
		return refuse(out, SLUICE_E_OWNED,
			      "producer %llu belongs to another client: the secret is wrong",
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
	struct producer_cell cell = {.epoch = 1,
				     .name = {m->name, strlen(m->name)},
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
		rc = timer_set(a, a->mono_ms + LIMIT_PRODUCER_IDLE_MS, TIMER_PRODUCER_IDLE, out->id,
			       0);
	out->epoch = cell.epoch;
	out->offset = cell.secret;
	if (rc == 0)
		rc = owner_set(a, &cell);
	return rc != 0 ? rc : cell_put(a, out->id, &cell, 0, NULL);
}

/* Only for the owner: numbers and epochs are not secret, so they give no right by themselves. */
static int cell_of_caller(struct apply *a, uint64_t producer, uint32_t epoch,
			  struct producer_cell *ret, struct outcome *out)
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
			      "epoch %u of producer %llu was never issued; it is at %u", epoch,
			      (unsigned long long)producer, ret->epoch);
	if (ret->owner != 0 && ret->owner != a->session)
		return refuse(out, SLUICE_E_OWNED,
			      "producer %llu belongs to another session: use the session that "
			      "opened it, or open it "
			      "again (a named one by its name, any by its number and secret)",
			      (unsigned long long)producer);
	return 0;
}

int producer_close_apply(struct apply *a, const Sluice__ProducerClose *m, struct outcome *out)
{
	struct producer_cell cell;
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

/* Unnamed producers only: a named one belongs to its name and stays. */
int producer_idle_fire(struct apply *a, uint64_t producer, uint64_t sub, uint32_t *io_work)
{
	uint64_t idle;
	struct producer_cell cell;
	struct key key;
	int rc = cell_get(a, producer, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	idle = age_of_mono(a, cell.used_mono_ms);
	if (idle < LIMIT_PRODUCER_IDLE_MS)
		return timer_set(a, a->mono_ms + LIMIT_PRODUCER_IDLE_MS - idle, TIMER_PRODUCER_IDLE,
				 producer, 0);
	if (age_doubt(a) != 0)
		return timer_set(a, age_doubt(a), TIMER_PRODUCER_IDLE, producer, 0);
	key_hot(&key, a->gateway, HOT_PRODUCER, producer);
	return store_del(a->txn, STORE_HOT, key_slice(&key));
}

/* ---- sequence ---- */

static int answer_again(const struct producer_cell *cell, const struct producer_call *call,
			struct outcome *out)
{
	for (uint16_t i = cell->answer_count; i > 0; i--) {
		struct producer_answer answer;

		producer_answer_decode(cell->answers + (size_t)(i - 1) * PRODUCER_ANSWER_BYTES,
				       &answer);
		if (answer.first_seq != call->first_seq)
			continue;
		if (answer.count != call->count)
			break;
		out->duplicate = true;
		out->index = answer.index;
		out->offset = answer.offset;
		if (out->kind == OUT_TXN)
			out->count = answer.failed;
		return answer.code == 0 ? 0
					: refuse(out, answer.code, "refused before: %s",
						 sluice_error_text(answer.code));
	}
	return refuse(out, SLUICE_E_CONFLICT,
		      "sequence numbers up to %llu were used: this call is settled, or differs "
		      "from the first",
		      (unsigned long long)cell->last_seq);
}

int producer_begin(struct apply *a, const struct producer_call *call, struct outcome *out)
{
	unsigned unsettled;
	uint64_t expected;
	struct producer_cell cell;
	int rc = cell_of_caller(a, call->producer, call->epoch, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	if (call->first_seq == 0 || call->count == 0 ||
	    call->first_seq > UINT64_MAX - call->count || call->settled_seq >= call->first_seq)
		return refuse(out, SLUICE_E_INVAL,
			      "sequence %llu, %u numbers, settled %llu: expected settled < "
			      "sequence, from 1",
			      (unsigned long long)call->first_seq, call->count,
			      (unsigned long long)call->settled_seq);
	if (call->first_seq <= cell.last_seq)
		return answer_again(&cell, call, out);
	expected = (cell.last_seq > call->settled_seq ? cell.last_seq : call->settled_seq) + 1;
	if (call->first_seq != expected)
		return refuse(out, SLUICE_E_SEQUENCE_GAP, "sequence is %llu; expected %llu",
			      (unsigned long long)call->first_seq, (unsigned long long)expected);
	unsettled = cell.answer_count - settled_count(&cell, call->settled_seq);
	if (unsettled >= LIMIT_PRODUCER_UNSETTLED_MAX)
		return refuse(out, SLUICE_E_BUSY,
			      "%u answers of this producer are not settled; at most %llu",
			      unsettled, (unsigned long long)LIMIT_PRODUCER_UNSETTLED_MAX);
	return 0;
}

int producer_end(struct apply *a, const struct producer_call *call, const struct outcome *out)
{
	const struct producer_answer answer = {.first_seq = call->first_seq,
					       .count = call->count,
					       .code = out->code,
					       .index = out->index,
					       .offset = out->offset,
					       .failed = out->kind == OUT_TXN ? out->count : 0};
	struct producer_cell cell;
	int rc;

	if (refused(out) && sluice_error_retriable(out->code))
		return 0;
	rc = cell_get(a, call->producer, &cell);
	if (rc != 0)
		return rc;
	invariant(call->first_seq > cell.last_seq && cell.epoch == call->epoch,
		  "producer %llu: sequence %llu after %llu, epoch %u of %u",
		  (unsigned long long)call->producer, (unsigned long long)call->first_seq,
		  (unsigned long long)cell.last_seq, call->epoch, cell.epoch);
	cell.last_seq = call->first_seq + call->count - 1;
	if (cell.owner != a->session) /* a cell of format 1 */
		rc = owner_set(a, &cell);
	return rc != 0 ? rc : cell_put(a, call->producer, &cell, call->settled_seq, &answer);
}
