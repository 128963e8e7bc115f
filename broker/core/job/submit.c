/* SPDX-License-Identifier: Apache-2.0
 *
 * JOB_SUBMIT. Idempotent by id: the same content is answered with the job as it is now, other
 * content with a CONFLICT that names the field. Reports that arrived before the job are applied
 * right after, as if they had arrived now.
 */
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/text.h"
#include "broker/core/base/topo.h"
#include "broker/core/job/history.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum { PRIORITY_MAX = 255 };

static int submit_check(const Sluice__JobSubmit *m, struct outcome *out)
{
	const char *why;
	int code = name_check(slice_text(m->job), &why);

	if (code != 0)
		return refuse(out, code, "job id: %s", why);
	if (m->priority > PRIORITY_MAX)
		return refuse(out, SLUICE_E_INVAL, "priority is %u; at most %d", m->priority,
			      PRIORITY_MAX);
	if (m->payload.len > LIMIT_JOB_PAYLOAD_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the payload has %zu bytes; at most %llu",
			      m->payload.len, (unsigned long long)LIMIT_JOB_PAYLOAD_BYTES_MAX);
	return job_text_check(out, "owner", m->owner, LIMIT_TEXT_BYTES_MAX);
}

static int queue_find(struct apply *a, const Sluice__JobSubmit *m, uint64_t *ret_queue,
		      struct outcome *out)
{
	struct queue_cell cell;
	int rc;

	if (m->queue[0] == '\0')
		return refuse(out, SLUICE_E_INVAL,
			      "the queue is missing; expected the name of a queue of jobs");
	rc = strlen(m->queue) > LIMIT_NAME_BYTES_MAX
		     ? SLUICE_E_NOT_FOUND
		     : name_find(a->txn, a->gateway, NAME_QUEUE, slice_text(m->queue), ret_queue);
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_NOT_FOUND, "queue %.255s does not exist", m->queue);
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, *ret_queue, &cell);
	if (rc != 0)
		return rc;
	if (cell.kind != SLUICE__QUEUE_KIND__QUEUE_JOBS)
		return refuse(out, SLUICE_E_INVAL,
			      "queue %s is of kind items; jobs need a queue of kind jobs",
			      m->queue);
	return 0;
}

static int lifecycle_named(struct apply *a, const char *name, const char *whose, uint64_t *ret,
			   struct outcome *out)
{
	int rc = strlen(name) > LIMIT_NAME_BYTES_MAX
			 ? SLUICE_E_NOT_FOUND
			 : name_find(a->txn, a->gateway, NAME_LIFECYCLE, slice_text(name), ret);

	return rc == SLUICE_E_NOT_FOUND ? refuse(out, SLUICE_E_NOT_FOUND,
						 "%s lifecycle %.255s does not exist", whose, name)
					: rc;
}

/* The job's own lifecycle, else its queue's, else the default. */
static int lifecycle_find(struct apply *a, const Sluice__JobSubmit *m, uint64_t queue,
			  uint64_t *ret, struct outcome *out)
{
	ProtobufCMessage *config;
	const char *name;
	int rc;

	if (m->lifecycle[0] != '\0')
		return lifecycle_named(a, m->lifecycle, "the job's", ret, out);
	rc = topo_find(a->txn, a->gateway, TOPO_QUEUE, queue, &sluice__queue_config__descriptor,
		       &config);
	if (rc != 0)
		return rc;
	name = ((const Sluice__QueueConfig *)config)->lifecycle;
	rc = lifecycle_named(a, name[0] != '\0' ? name : LIFECYCLE_DEFAULT_NAME, "the queue's", ret,
			     out);
	protobuf_c_message_free_unpacked(config, NULL);
	return rc;
}

/* The field that differs from the first submit; NULL: none. One may name the lifecycle that the
 * other leaves to the queue. */
static const char *difference(const Sluice__JobSubmit *first, const struct job_record *record,
			      const Sluice__JobSubmit *m, const struct lifecycle *lifecycle)
{
	if (strcmp(first->queue, m->queue) != 0)
		return "queue";
	if (strcmp(first->lifecycle, m->lifecycle) != 0 && m->lifecycle[0] != '\0' &&
	    strcmp(lifecycle->config->name, m->lifecycle) != 0)
		return "lifecycle";
	if (record->payload.len != m->payload.len ||
	    (m->payload.len > 0 &&
	     memcmp(record->payload.data, m->payload.data, m->payload.len) != 0))
		return "payload";
	if (strcmp(first->owner, m->owner) != 0)
		return "owner";
	return first->priority != m->priority ? "priority" : NULL;
}

static int submit_again(struct apply *a, uint64_t number, const Sluice__JobSubmit *m,
			struct outcome *out)
{
	struct job_record record;
	Sluice__JobSubmit *first;
	const char *field;
	struct job job;
	int rc = job_load(a, number, &job);

	if (rc == 0)
		rc = job_record_get(a->txn, a->gateway, number, &record);
	if (rc == 0)
		rc = job_record_meta(&record, &first);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	field = difference(first, &record, m, job.lifecycle);
	sluice__job_submit__free_unpacked(first, NULL);
	if (field != NULL)
		return refuse(out, SLUICE_E_CONFLICT, "job %s exists with another %s", m->job,
			      field);
	job_outcome(&job, OUT_SUBMITTED, out);
	out->duplicate = true;
	out->index = record.index;
	return 0;
}

static int submit_new(struct apply *a, const Sluice__JobSubmit *m, uint64_t queue,
		      uint64_t lifecycle, struct job *job)
{
	const struct job_fact fact = job_fact("submit", JOB_SOURCE_BROKER, "");
	int rc = lifecycle_get(a, lifecycle, &job->lifecycle);

	if (rc == 0)
		rc = counter_next(a, COUNTER_JOB, &job->number);
	if (rc == 0)
		rc = name_put(a, NAME_JOB, slice_text(m->job), job->number);
	if (rc == 0)
		rc = job_record_put(a, job->number, m);
	if (rc != 0)
		return rc;
	job->id = m->job;
	job->live = (struct job_live){.priority = (uint8_t)m->priority,
				      .attempt = 1,
				      .seen = 1,
				      .lifecycle = (uint32_t)lifecycle,
				      .queue = queue,
				      .changed_ms = a->wall_ms};
	rc = job_history_append(a, job, "", &fact);
	if (rc == 0)
		rc = job_make_ready(a, job);
	if (rc == 0)
		rc = job_event_publish(a, job, "", &fact);
	if (rc == 0)
		rc = lifecycle_jobs_add(a, lifecycle, 1);
	if (rc == 0)
		rc = counter_add(a, COUNTER_JOBS, 1);
	return rc != 0 ? rc : counter_add(a, COUNTER_JOBS_OPEN, 1);
}

int job_submit_apply(struct apply *a, const Sluice__JobSubmit *m, struct outcome *out)
{
	uint64_t number, queue = 0, lifecycle = 0;
	struct job job;
	int rc = submit_check(m, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_JOB, slice_text(m->job), &number);
	if (rc == 0)
		return submit_again(a, number, m, out);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = queue_find(a, m, &queue, out);
	if (rc == 0 && !refused(out))
		rc = lifecycle_find(a, m, queue, &lifecycle, out);
	if (rc == 0 && !refused(out))
		rc = queue_room_check(a, queue, SLUICE__QUEUE_KIND__QUEUE_JOBS, 1, out);
	if (rc != 0 || refused(out))
		return rc;
	rc = submit_new(a, m, queue, lifecycle, &job);
	if (rc == 0)
		rc = quarantine_unpark(a, &job);
	if (rc == 0)
		rc = job_store(a, &job);
	if (rc == 0) {
		job_outcome(&job, OUT_SUBMITTED, out);
		out->index = a->index;
	}
	return rc;
}
