/* SPDX-License-Identifier: Apache-2.0
 * pub, put, follow, claim. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "json.h"
#include "time_parse.h"

enum { HEADERS_MAX = 32 };

/* ---- pub, put ---- */

static int headers_take(struct cli *cli, const char **list, char **owned)
{
	const char *value;
	int pos = 0, count = 0;

	while (option_many(cli, "header", &pos, &value)) {
		char *copy = strdup(value), *equals = copy != NULL ? strchr(copy, '=') : NULL;

		if (equals == NULL || count == HEADERS_MAX) {
			free(copy);
			return report_error(cli, SLUICE_E_INVAL,
					    "--header is '%s'; expected NAME=VALUE, at most %d",
					    value, HEADERS_MAX);
		}
		*equals = 0;
		owned[count] = copy;
		list[2 * count] = copy;
		list[2 * count + 1] = equals + 1;
		count++;
	}
	list[2 * count] = NULL;
	return 0;
}

static int publish_one(struct cli *cli, const sluice_message *message)
{
	sluice_reply *reply = NULL;
	int rc = sluice_publish(cli->client, message, NULL, &reply);

	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		(void)printf("{\"offset\":%lld,\"index\":%llu}\n",
			     sluice_reply_offset(reply) == UINT64_MAX
				     ? -1LL
				     : (long long)sluice_reply_offset(reply),
			     (unsigned long long)sluice_reply_index(reply));
	else if (sluice_reply_offset(reply) == UINT64_MAX)
		notice(cli, "accepted, but nothing is bound to this subject");
	else
		(void)printf("%llu\n", (unsigned long long)sluice_reply_offset(reply));
	sluice_reply_free(reply);
	return 0;
}

/* Sends lines without waiting for each. Temporary refusals are retried until the line's own
 * deadline: a failure then is permanent, and ends the input. */
static int publish_lines(struct cli *cli, sluice_message message)
{
	sluice_call fire = SLUICE_CALL(.user = SLUICE_FIRE, .deadline_ms = cli->timeout_ms);
	sluice_publish_stats stats = SLUICE_PUBLISH_STATS();
	char *line = NULL;
	size_t capacity = 0;
	unsigned long count = 0;
	ssize_t len;
	int rc = 0, flushed;

	while (rc == 0 && stats.failed == 0 && (len = getline(&line, &capacity, stdin)) > 0) {
		message.body = (sluice_slice){line, (size_t)len - (line[len - 1] == '\n')};
		rc = sluice_publish(cli->client, &message, &fire, NULL);
		count += rc == 0;
		sluice_publish_stats_get(cli->client, &stats);
	}
	free(line);
	if (rc != 0)
		(void)report_error(cli, rc, "line %lu: %s (%s)", count + 1, sluice_last_error(NULL),
				   sluice_error_name(rc));
	else if (ferror(stdin))
		rc = report_error(cli, SLUICE_E_IO, "standard input, after %lu lines: %s", count,
				  strerror(errno));
	flushed = sluice_flush(cli->client, -1); /* each line has a deadline of its own */
	sluice_publish_stats_get(cli->client, &stats);
	if (flushed != 0)
		rc = report_error(cli, flushed, "%s (%s); %llu of %lu lines were accepted",
				  sluice_last_error(NULL), sluice_error_name(flushed),
				  (unsigned long long)stats.acked, count);
	if (rc != 0)
		return rc;
	(void)printf(cli->json ? "{\"lines\":%lu}\n" : "%lu lines\n", count);
	return 0;
}

static int publish(struct cli *cli, sluice_message message, const char *body_word)
{
	const char *list[2 * HEADERS_MAX + 1], *key = option(cli, "key"), *id = option(cli, "id");
	char *owned[HEADERS_MAX] = {NULL}, *body = NULL;
	size_t len = 0;
	uint64_t priority;
	int rc = headers_take(cli, list, owned);

	if (rc == 0 && !number_option(cli, "priority", 0, 0, 255, &priority))
		rc = SLUICE_E_INVAL;
	if (rc == 0 && option(cli, "lines") != NULL && body_word != NULL)
		rc = report_error(cli, SLUICE_E_INVAL,
				  "unexpected argument '%s': with --lines the bodies are read from "
				  "standard input",
				  body_word);
	if (rc == 0 && option(cli, "lines") == NULL && body_word == NULL)
		rc = report_error(cli, SLUICE_E_INVAL,
				  "the body is missing; expected text, - or @FILE");
	if (rc == 0 && option(cli, "lines") == NULL)
		rc = body_read(cli, body_word, &body, &len);
	if (rc == 0)
		rc = need(cli);
	if (rc == 0) {
		message.headers = list[0] != NULL ? list : NULL;
		message.key = (sluice_slice){key, key != NULL ? strlen(key) : 0};
		message.id = (sluice_slice){id, id != NULL ? strlen(id) : 0};
		message.priority = (uint8_t)priority;
		message.body = (sluice_slice){body, len};
		rc = option(cli, "lines") != NULL ? publish_lines(cli, message)
						  : publish_one(cli, &message);
	}
	free(body);
	for (int i = 0; i < HEADERS_MAX; i++)
		free(owned[i]);
	return rc;
}

int cmd_pub(struct cli *cli)
{
	sluice_message message =
		SLUICE_MESSAGE(.subject = cli->args[0], .stream = option(cli, "stream"));

	/* A message without a target is an error by default: otherwise a mistyped subject would
	 * exit with 0. */
	message.mandatory = option(cli, "allow-unrouted") == NULL;
	if (option(cli, "mandatory") != NULL && !message.mandatory)
		return report_error(cli, SLUICE_E_INVAL,
				    "--mandatory and --allow-unrouted exclude each other");

	return publish(cli, message, cli->arg_count > 1 ? cli->args[1] : NULL);
}

int cmd_put(struct cli *cli)
{
	sluice_message message = SLUICE_MESSAGE(.subject = cli->args[1], .queue = cli->args[0]);

	return publish(cli, message, cli->arg_count > 2 ? cli->args[2] : NULL);
}

/* ---- printing deliveries ---- */

static void print_headers(const char *const *headers)
{
	(void)printf(",\"headers\":{");
	for (size_t i = 0; headers[i] != NULL; i += 2) {
		if (i > 0)
			(void)putchar(',');
		json_put_text(stdout, headers[i], strlen(headers[i]));
		(void)putchar(':');
		json_put_text(stdout, headers[i + 1], strlen(headers[i + 1]));
	}
	(void)putchar('}');
}

static void print_view(const sluice_delivery_view *view)
{
	const struct {
		const char *name;
		sluice_slice bytes;
	} parts[] = {{"subject",
		      {view->subject, view->subject != NULL ? strlen(view->subject) : 0}},
		     {"key", view->key},
		     {"id", view->id}};

	if (view->kind == SLUICE_DELIVERY_EVENT)
		(void)printf("{\"offset\":%llu", (unsigned long long)view->offset);
	else
		(void)printf("{\"seq\":%llu,\"token\":%llu,\"attempts\":%u",
			     (unsigned long long)view->seq, (unsigned long long)view->token,
			     view->failed_attempts);
	(void)printf(",\"time_ms\":%llu", (unsigned long long)view->time_ms);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (parts[i].bytes.len == 0)
			continue;
		(void)putchar(',');
		json_put_member(stdout, parts[i].name, parts[i].bytes.data, parts[i].bytes.len);
	}
	if (view->headers != NULL)
		print_headers(view->headers);
	(void)putchar(',');
	json_put_member(stdout, "body", view->body.data, view->body.len);
	(void)printf("}\n");
}

/* 0 or IO, reported: an event that was not written must not be acked. */
static int print_delivery(struct cli *cli, const sluice_delivery_view *view)
{
	char when[32];

	if (cli->json) {
		print_view(view);
	} else {
		(void)printf("%llu  %s  %s  ",
			     (unsigned long long)(view->kind == SLUICE_DELIVERY_EVENT ? view->offset
										      : view->seq),
			     time_text(view->time_ms, when), view->subject);
		(void)fwrite(view->body.data, 1, view->body.len, stdout);
		(void)putchar('\n');
	}
	return written(cli);
}

/* ---- follow ---- */

static int from_parse(struct cli *cli, const char *text, sluice_follow_spec *spec)
{
	char *end = NULL;
	uint64_t ago;
	struct timespec now;

	if (text == NULL || strcmp(text, "new") == 0) {
		spec->from = SLUICE_FROM_NEW;
	} else if (strcmp(text, "first") == 0) {
		spec->from = SLUICE_FROM_FIRST;
	} else if (strcmp(text, "last") == 0) {
		spec->from = SLUICE_FROM_LAST;
	} else if (strncmp(text, "cursor:", 7) == 0 && text[7] != 0) {
		spec->from = SLUICE_FROM_CURSOR;
		spec->cursor = text + 7;
	} else if (text[0] == '-' && duration_parse(text + 1, &ago)) {
		(void)clock_gettime(CLOCK_REALTIME, &now);
		spec->from = SLUICE_FROM_TIME;
		spec->time_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
		spec->time_ms -= ago < spec->time_ms ? ago : spec->time_ms;
	} else if (time_parse(text, &spec->time_ms)) {
		spec->from = SLUICE_FROM_TIME;
	} else {
		spec->from = SLUICE_FROM_OFFSET;
		errno = 0;
		spec->offset = strtoull(text, &end, 10);
		if (text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0)
			return report_error(cli, SLUICE_E_INVAL,
					    "--from is '%s'; expected first, last, new, an offset, "
					    "a time ago such as -1h, "
					    "a time that exists, such as 2026-11-24T10:30Z, or "
					    "cursor:NAME",
					    text);
	}
	return 0;
}

int cmd_follow(struct cli *cli)
{
	sluice_follow_spec spec =
		SLUICE_FOLLOW_SPEC(.stream = cli->args[0], .filter = option(cli, "filter"));
	bool until_caught_up = option(cli, "until-caught-up") != NULL;
	sluice_sub *sub = NULL;
	uint64_t count, seen = 0;
	int said = 0, rc = from_parse(cli, option(cli, "from"), &spec);

	if (rc == 0 && !number_option(cli, "count", UINT64_MAX, 0, UINT64_MAX, &count))
		rc = SLUICE_E_INVAL;
	if (rc == 0)
		rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_follow(cli->client, &spec, NULL, &sub);
	if (rc != 0)
		return report_error(cli, rc, "%s (%s)", sluice_last_error(NULL),
				    sluice_error_name(rc));
	while (rc == 0 && seen < count) {
		sluice_delivery *delivery = NULL;
		const sluice_delivery_view *view;
		sluice_delivery_kind kind;

		rc = sluice_sub_next(sub, -1, &delivery);
		if (rc != 0)
			break;
		view = sluice_delivery_get(delivery);
		kind = view->kind;
		if (kind == SLUICE_DELIVERY_EVENT) {
			said = rc = print_delivery(cli, view);
			seen++;
		} else if (kind == SLUICE_DELIVERY_GAP) {
			notice(cli, "gap: offsets %llu to %llu were removed by retention",
			       (unsigned long long)view->offset,
			       (unsigned long long)view->to_offset - 1);
		}
		sluice_delivery_free(delivery);
		if (kind == SLUICE_DELIVERY_CAUGHT_UP && until_caught_up)
			break;
	}
	if (rc != 0 && said == 0)
		(void)report_error(cli, rc, "following stream '%s' ended: %s (%s)", spec.stream,
				   sluice_last_error(NULL), sluice_error_name(rc));
	(void)sluice_sub_close(sub, 1000);
	return rc;
}

/* ---- claim ---- */

int cmd_claim(struct cli *cli)
{
	sluice_consume_spec spec =
		SLUICE_CONSUME_SPEC(.queue = cli->args[0], .manual_credit = true);
	const sluice_call call = SLUICE_CALL(.deadline_ms = cli->timeout_ms);
	bool ack = option(cli, "ack") != NULL, release = option(cli, "release") != NULL;
	char why[256];
	int said = 0;
	uint64_t count, wait_ms, lease_ms, got = 0;
	sluice_sub *sub = NULL;
	int rc;

	if (!number_option(cli, "count", 1, 1, 1000000, &count) ||
	    !duration_option(cli, "wait", 1000, 86400000, &wait_ms) ||
	    !duration_option(cli, "lease", 0, UINT32_MAX, &lease_ms))
		return SLUICE_E_INVAL;
	if (ack && release)
		return report_error(cli, SLUICE_E_INVAL, "--ack and --release exclude each other");
	spec.credit = (uint32_t)count;
	spec.lease_ms = (uint32_t)lease_ms;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_consume(cli->client, &spec, NULL, &sub);
	if (rc != 0)
		return report_error(cli, rc, "%s (%s)", sluice_last_error(NULL),
				    sluice_error_name(rc));
	while (got < count) {
		sluice_delivery *delivery = NULL;
		const sluice_delivery_view *view;

		/* Entries that exist arrive within a moment; 0 would be the client's default. */
		rc = sluice_sub_next(sub, wait_ms < 50 ? 50 : (int)wait_ms, &delivery);
		if (rc != 0)
			break;
		view = sluice_delivery_get(delivery);
		if (view->kind == SLUICE_DELIVERY_ITEM) {
			said = rc = print_delivery(cli, view);
			got++;
			if (rc == 0 && ack)
				rc = sluice_item_ack(sub, view->token, view->seq, &call, NULL);
			else if (rc == 0 && release)
				rc = sluice_item_release(sub, view->token, view->seq, &call, NULL);
			else if (rc != 0) /* one that could not be printed was not handled */
				(void)sluice_item_release(sub, view->token, view->seq, &call, NULL);
		} else if (view->kind == SLUICE_DELIVERY_JOB) {
			said = report_error(cli, SLUICE_E_INVAL,
					    "queue '%s' is a queue of jobs, which only a scheduler "
					    "claims",
					    spec.queue);
			rc = sluice_job_release(cli->client, view->job, view->token, 0,
						"claimed by the CLI by mistake", NULL, NULL);
			rc = rc == 0 ? said : rc;
		}
		sluice_delivery_free(delivery);
		if (rc != 0)
			break;
	}
	(void)snprintf(why, sizeof(why), "%s", sluice_last_error(NULL));
	(void)sluice_sub_close(sub, 1000);
	if (said != 0)
		return rc;
	if (rc == SLUICE_E_TIMEOUT)
		return got > 0 ? 0 : report_error(cli, rc, "no item arrived within the wait time");
	return rc != 0 ? report_error(cli, rc, "%s (%s)", why, sluice_error_name(rc)) : 0;
}
