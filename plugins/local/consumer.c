/* SPDX-License-Identifier: Apache-2.0
 *
 * From a connection to deliveries: the queue is looked up, then its lifecycle, whose states are
 * mapped and checked, then the queue is consumed. After a step that fails, the next try begins with
 * the first step, after a pause that doubles, for as long as `give_up_ms` allows. The cause is
 * logged when it changes, and once in every 64 tries.
 *
 * Invariant: an answer to an earlier client, or of an earlier try, changes nothing (`life`).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "consumer.h"
#include "job.h"
#include "lifecycle_cache.h"

enum { PAUSE_MS_MIN = 250, DOUBLINGS_MAX = 5, ASK_MS = 5000, LOG_EVERY = 64 };

/* The lifecycle of a queue that names none. */
static const char lifecycle_default[] = "airavata";

/* Another try would end the same way: the request is refused, or another instance has the
 * session. */
static bool is_final(int code)
{
	return code == SLUICE_E_INVAL || code == SLUICE_E_VERSION || code == SLUICE_E_DENIED ||
	       code == SLUICE_E_SESSION_GONE || code == SLUICE_E_UNSUPPORTED;
}

void consumer_lost(struct service *service, int code, const char *why)
{
	struct consumer *consumer = &service->consumer;
	uint64_t now_ms = service_now_ms();
	bool changed = strncmp(consumer->cause, why, sizeof(consumer->cause) - 1) != 0;
	char text[512];

	consumer->life++;
	consumer->phase = PHASE_WAITING;
	if (service->stopping)
		return;
	if (consumer->since_ms == 0)
		consumer->since_ms = now_ms;
	consumer->due_ms =
		now_ms + ((uint64_t)PAUSE_MS_MIN
			  << (consumer->waits < DOUBLINGS_MAX ? consumer->waits : DOUBLINGS_MAX));
	consumer->waits++;
	(void)snprintf(consumer->cause, sizeof(consumer->cause), "%s", why);
	if (code == SLUICE_E_SESSION_GONE) {
		(void)snprintf(text, sizeof(text),
			       "another client opened the session '%.200s'; this instance ends "
			       "(setting session)",
			       service->settings.session);
		service_fail(service, code, "local.session_gone", text);
	} else if (code == SLUICE_E_CONFLICT) {
		(void)snprintf(text, sizeof(text),
			       "another session represents the source '%.200s' (setting source): "
			       "%.200s",
			       service->source, why);
		service_fail(service, code, "local.source_taken", text);
	} else if (is_final(code)) {
		service_fail(service, code, "local.refused", why);
	} else if (service->settings.give_up_ms > 0 &&
		   now_ms - consumer->since_ms >= service->settings.give_up_ms) {
		(void)snprintf(text, sizeof(text), "stopped after give_up_ms: %.400s", why);
		service_fail(service, code, "local.gave_up", text);
	} else if (changed || consumer->waits % LOG_EVERY == 0) {
		(void)snprintf(text, sizeof(text), "%.400s; waiting", why);
		service_log(service, SLUICE_LOG_WARN, "local.waiting", NULL, text);
	}
}

/* ---- the steps ---- */

struct step {
	struct service *service;
	unsigned life;
};

static struct step *step_new(struct service *service)
{
	struct step *step = malloc(sizeof(*step));

	if (step != NULL)
		*step = (struct step){.service = service, .life = service->consumer.life};
	return step;
}

/* True: the answer is of this try and good. `what` names the step for the log. */
static bool step_good(struct step *step, const sluice_reply *reply, const char *what)
{
	struct service *service = step->service;
	bool current = step->life == service->consumer.life;
	int rc = sluice_reply_code(reply);
	char why[300];

	free(step);
	if (!current || rc == 0)
		return current;
	if (rc == SLUICE_E_TIMEOUT || rc == SLUICE_E_DISCONNECTED)
		(void)snprintf(why, sizeof(why), "no answer from the broker to %s: %.200s", what,
			       sluice_reply_text(reply));
	else
		(void)snprintf(why, sizeof(why), "%s: %.200s", what, sluice_reply_text(reply));
	consumer_lost(service, rc, why);
	return false;
}

/* A call could not be made: no memory, or the client has ended. */
static void step_failed(struct service *service, struct step *step, int code)
{
	free(step);
	consumer_lost(service, code, sluice_error_text(code));
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *delivery, void *user)
{
	struct service *service = user;

	if (delivery->kind == SLUICE_DELIVERY_JOB) {
		job_handle_delivery(service, delivery);
	} else if (delivery->kind == SLUICE_DELIVERY_END && sub == service->sub &&
		   !service->stopping) {
		service->sub = NULL;
		(void)sluice_sub_close(sub, 0);
		consumer_lost(service, delivery->code, delivery->text);
	}
}

static void on_consume(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct service *service = ((struct step *)user)->service;

	(void)client;
	if (!step_good(user, reply, "consume")) {
		/* One that did not open has to be closed all the same. */
		if (service->consumer.phase == PHASE_WAITING && service->sub != NULL) {
			sluice_sub *sub = service->sub;

			service->sub = NULL;
			(void)sluice_sub_close(sub, 0);
		}
		return;
	}
	service->consumer.phase = PHASE_OPEN;
	service->consumer.waits = 0;
	service->consumer.since_ms = 0;
	service->consumer.cause[0] = 0;
	service_log(service, SLUICE_LOG_INFO, "local.ready", NULL, service->settings.queue);
	compare_soon(service);
}

static void consume(struct service *service)
{
	sluice_consume_spec spec = SLUICE_CONSUME_SPEC(.queue = service->settings.queue,
						       .credit = (uint32_t)service->settings.slots,
						       .orphans = true, .source = service->source,
						       .on_delivery = on_delivery, .user = service);
	struct step *step = step_new(service);
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_consume, .user = step);
	int rc = step == NULL ? SLUICE_E_NOMEM
			      : sluice_consume(service->client, &spec, &call, &service->sub);

	if (rc != 0)
		step_failed(service, step, rc);
}

static void on_lifecycle(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct service *service = ((struct step *)user)->service;
	char why[512] = "out of memory";
	int rc;

	(void)client;
	if (!step_good(user, reply, "the queue's lifecycle"))
		return;
	rc = lifecycle_cache_put(service, reply, true, &service->queue_lifecycle, why, sizeof(why));
	if (rc == SLUICE_E_INVAL)
		service_fail(service, rc, "local.lifecycle", why);
	else if (rc != 0)
		consumer_lost(service, rc, why);
	else
		consume(service);
}

static void ask_lifecycle(struct service *service)
{
	struct step *step = step_new(service);
	sluice_call call = SLUICE_CALL(.deadline_ms = ASK_MS, .done = on_lifecycle, .user = step);
	int rc = step == NULL ? SLUICE_E_NOMEM
			      : sluice_object_show(service->client, SLUICE_OBJECT_LIFECYCLE,
						   service->consumer.lifecycle, &call, NULL);

	if (rc != 0)
		step_failed(service, step, rc);
}

/* What the queue is, from the JSON of its row: the struct of client.h has no lifecycle. */
static int queue_read(struct service *service, const sluice_reply *reply)
{
	sluice_reply *own = sluice_reply_ref((sluice_reply *)(uintptr_t)reply);
	const char *text = own != NULL ? sluice_reply_json(own) : NULL;
	json_t *json = text != NULL ? json_loads(text, 0, NULL) : NULL;
	json_t *config =
		json_object_get(json_array_get(json_object_get(json, "queues"), 0), "config");
	const char *lifecycle = json_string_value(json_object_get(config, "lifecycle"));
	const char *kind = json_string_value(json_object_get(config, "kind"));
	int rc = config == NULL ? SLUICE_E_NOMEM : 0;

	if (rc == 0 && (kind == NULL || strcmp(kind, "jobs") != 0))
		rc = SLUICE_E_INVAL;
	(void)snprintf(service->consumer.lifecycle, sizeof(service->consumer.lifecycle), "%s",
		       lifecycle != NULL && lifecycle[0] != 0 ? lifecycle : lifecycle_default);
	json_decref(json);
	sluice_reply_free(own);
	return rc;
}

static void on_queue(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct service *service = ((struct step *)user)->service;
	char why[400];
	int rc;

	(void)client;
	if (!step_good(user, reply, "the queue"))
		return;
	rc = queue_read(service, reply);
	if (rc == 0) {
		ask_lifecycle(service);
		return;
	}
	(void)snprintf(why, sizeof(why),
		       "setting queue is '%.200s', which is a queue of items; expected one of jobs",
		       service->settings.queue);
	if (rc == SLUICE_E_INVAL)
		service_fail(service, rc, "local.setting", why);
	else
		consumer_lost(service, rc, "the broker's answer cannot be read");
}

void consumer_turn(struct service *service, uint64_t now_ms)
{
	struct step *step;
	sluice_call call = SLUICE_CALL(.deadline_ms = ASK_MS, .done = on_queue);
	int rc;

	if (service->consumer.phase != PHASE_WAITING || service->consumer.due_ms > now_ms ||
	    service->stopping)
		return;
	service->consumer.phase = PHASE_ASKING;
	call.user = step = step_new(service);
	rc = step == NULL ? SLUICE_E_NOMEM
			  : sluice_object_show(service->client, SLUICE_OBJECT_QUEUE,
					       service->settings.queue, &call, NULL);
	if (rc != 0)
		step_failed(service, step, rc);
}
