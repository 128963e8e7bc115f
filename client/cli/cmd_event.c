/* SPDX-License-Identifier: Apache-2.0
 * pub, put, follow, claim. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

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
			return complain(cli, SLUICE_E_INVAL, "--header is '%s'; expected NAME=VALUE, at most %d", value, HEADERS_MAX);
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
		(void)printf("{\"offset\":%lld,\"index\":%llu}\n", sluice_reply_offset(reply) == UINT64_MAX ? -1LL : (long long)sluice_reply_offset(reply),
			     (unsigned long long)sluice_reply_index(reply));
	else if (sluice_reply_offset(reply) == UINT64_MAX)
		(void)fprintf(stderr, "taken, but nothing is bound to this subject\n");
	else
		(void)printf("%llu\n", (unsigned long long)sluice_reply_offset(reply));
	sluice_reply_free(reply);
	return 0;
}

static int publish_lines(struct cli *cli, sluice_message message)
{
	sluice_call fire = {.user = SLUICE_FIRE};
	char *line = NULL;
	size_t capacity = 0;
	unsigned long count = 0;
	ssize_t len;
	int rc = 0;

	while (rc == 0 && (len = getline(&line, &capacity, stdin)) > 0) {
		message.body = (sluice_slice_t){line, (size_t)len - (line[len - 1] == '\n')};
		rc = sluice_publish(cli->client, &message, &fire, NULL);
		count += rc == 0;
	}
	free(line);
	if (rc == 0)
		rc = sluice_flush(cli->client, cli->timeout_ms);
	if (rc != 0)
		return complain(cli, rc, "after %lu lines: %s", count, sluice_error_text(rc));
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

	if (rc == 0 && !number_option(cli, "priority", 0, &priority))
		rc = SLUICE_E_INVAL;
	if (rc == 0 && priority > 255)
		rc = complain(cli, SLUICE_E_INVAL, "--priority is %llu; expected 0 to 255", (unsigned long long)priority);
	if (rc == 0 && option(cli, "lines") == NULL && body_word == NULL)
		rc = complain(cli, SLUICE_E_INVAL, "the body is missing; expected text, - or @FILE");
	if (rc == 0 && option(cli, "lines") == NULL)
		rc = body_read(cli, body_word, &body, &len);
	if (rc == 0)
		rc = need(cli);
	if (rc == 0) {
		message.headers = list[0] != NULL ? list : NULL;
		message.key = (sluice_slice_t){key, key != NULL ? strlen(key) : 0};
		message.id = (sluice_slice_t){id, id != NULL ? strlen(id) : 0};
		message.priority = (uint8_t)priority;
		message.body = (sluice_slice_t){body, len};
		rc = option(cli, "lines") != NULL ? publish_lines(cli, message) : publish_one(cli, &message);
	}
	free(body);
	for (int i = 0; i < HEADERS_MAX; i++)
		free(owned[i]);
	return rc;
}

int cmd_pub(struct cli *cli)
{
	sluice_message message = {.subject = cli->args[0], .stream = option(cli, "stream"), .mandatory = option(cli, "mandatory") != NULL};

	return publish(cli, message, cli->arg_count > 1 ? cli->args[1] : NULL);
}

int cmd_put(struct cli *cli)
{
	sluice_message message = {.subject = cli->args[1], .queue = cli->args[0]};

	return publish(cli, message, cli->arg_count > 2 ? cli->args[2] : NULL);
}

/* ---- printing deliveries ---- */

static void put_json_text(const char *bytes, size_t len)
{
	(void)putchar('"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c == '"' || c == '\\')
			(void)printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			(void)printf("\\u%04x", c);
		else
			(void)putchar(c);
	}
	(void)putchar('"');
}

static void put_json_member(const char *name, const void *bytes, size_t len)
{
	if (len == 0)
		return;
	(void)printf(",\"%s\":", name);
	put_json_text(bytes, len);
}

static void print_json(const sluice_delivery_view *view)
{
	if (view->kind == SLUICE_EVENT)
		(void)printf("{\"offset\":%llu", (unsigned long long)view->offset);
	else
		(void)printf("{\"seq\":%llu,\"token\":%llu,\"attempts\":%u", (unsigned long long)view->seq, (unsigned long long)view->token, view->attempts);
	(void)printf(",\"time_ms\":%llu", (unsigned long long)view->time_ms);
	put_json_member("subject", view->subject, view->subject != NULL ? strlen(view->subject) : 0);
	put_json_member("key", view->key.data, view->key.len);
	put_json_member("id", view->id.data, view->id.len);
	if (view->headers != NULL) {
		(void)printf(",\"headers\":{");
		for (size_t i = 0; view->headers[i] != NULL; i += 2) {
			if (i > 0)
				(void)putchar(',');
			put_json_text(view->headers[i], strlen(view->headers[i]));
			(void)putchar(':');
			put_json_text(view->headers[i + 1], strlen(view->headers[i + 1]));
		}
		(void)putchar('}');
	}
	(void)printf(",\"body\":");
	put_json_text(view->body.data, view->body.len);
	(void)printf("}\n");
}

static void print_delivery(const struct cli *cli, const sluice_delivery_view *view)
{
	char when[32];

	if (cli->json) {
		print_json(view);
	} else {
		(void)printf("%llu  %s  %s  ", (unsigned long long)(view->kind == SLUICE_EVENT ? view->offset : view->seq), time_text(view->time_ms, when), view->subject);
		(void)fwrite(view->body.data, 1, view->body.len, stdout);
		(void)putchar('\n');
	}
	(void)fflush(stdout);
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
	} else {
		spec->from = SLUICE_FROM_OFFSET;
		spec->offset = strtoull(text, &end, 10);
		if (text[0] < '0' || text[0] > '9' || *end != 0)
			return complain(cli, SLUICE_E_INVAL, "--from is '%s'; expected first, last, new, an offset, a time ago such as -1h, or cursor:NAME", text);
	}
	return 0;
}

int cmd_follow(struct cli *cli)
{
	sluice_follow_spec spec = {.stream = cli->args[0], .filter = option(cli, "filter")};
	bool until_caught_up = option(cli, "until-caught-up") != NULL;
	sluice_sub *sub = NULL;
	uint64_t count, seen = 0;
	int rc = from_parse(cli, option(cli, "from"), &spec);

	if (rc == 0 && !number_option(cli, "count", UINT64_MAX, &count))
		rc = SLUICE_E_INVAL;
	if (rc == 0)
		rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_follow(cli->client, &spec, NULL, &sub);
	if (rc != 0)
		return complain(cli, rc, "stream '%s': %s (%s)", spec.stream, sluice_error_text(rc), sluice_error_name(rc));
	while (rc == 0 && seen < count) {
		sluice_delivery *delivery = NULL;
		const sluice_delivery_view *view;
		sluice_delivery_kind kind;

		rc = sluice_sub_next(sub, -1, &delivery);
		if (rc != 0)
			break;
		view = sluice_delivery_get(delivery);
		kind = view->kind;
		if (kind == SLUICE_EVENT) {
			print_delivery(cli, view);
			seen++;
		} else if (kind == SLUICE_GAP) {
			(void)fprintf(stderr, "gap: offsets %llu to %llu are gone by retention\n", (unsigned long long)view->offset,
				      (unsigned long long)view->to_offset - 1);
		}
		sluice_delivery_free(delivery);
		if (kind == SLUICE_CAUGHT_UP && until_caught_up)
			break;
	}
	(void)sluice_sub_close(sub, 1000);
	return rc == 0 ? 0 : complain(cli, rc, "%s", sluice_error_text(rc));
}

/* ---- claim ---- */

int cmd_claim(struct cli *cli)
{
	sluice_consume_spec spec = {.queue = cli->args[0], .manual_credit = true};
	bool ack = option(cli, "ack") != NULL;
	uint64_t count, wait_ms = 1000, lease_ms = 0, got = 0;
	sluice_sub *sub = NULL;
	int rc;

	if (!number_option(cli, "count", 1, &count) || count == 0 || count > 1000000)
		return complain(cli, SLUICE_E_INVAL, "--count; expected 1 to 1000000");
	if ((option(cli, "wait") != NULL && !duration_parse(option(cli, "wait"), &wait_ms)) || wait_ms > 86400000 ||
	    (option(cli, "lease") != NULL && (!duration_parse(option(cli, "lease"), &lease_ms) || lease_ms > UINT32_MAX)))
		return complain(cli, SLUICE_E_INVAL, "--wait and --lease are durations such as 10s");
	spec.credit = (uint32_t)count;
	spec.lease_ms = (uint32_t)lease_ms;
	rc = need(cli);
	if (rc == 0)
		rc = sluice_consume(cli->client, &spec, NULL, &sub);
	if (rc != 0)
		return cli->client != NULL ? complain(cli, rc, "queue '%s': %s (%s)", spec.queue, sluice_error_text(rc), sluice_error_name(rc)) : rc;
	while (got < count) {
		sluice_delivery *delivery = NULL;
		const sluice_delivery_view *view;

		rc = sluice_sub_next(sub, (int)wait_ms, &delivery);
		if (rc != 0)
			break;
		view = sluice_delivery_get(delivery);
		if (view->kind == SLUICE_ITEM) {
			print_delivery(cli, view);
			got++;
			if (ack)
				rc = sluice_ack(sub, view->token, view->seq, &(sluice_call){.deadline_ms = cli->timeout_ms}, NULL);
		} else if (view->kind == SLUICE_JOB) {
			(void)complain(cli, 0, "queue '%s' holds jobs; a scheduler claims those", spec.queue);
			rc = sluice_job_release(cli->client, view->job, view->token, 0, "claimed by the CLI by mistake", NULL, NULL);
			rc = rc == 0 ? SLUICE_E_INVAL : rc;
		}
		sluice_delivery_free(delivery);
		if (rc != 0)
			break;
	}
	(void)sluice_sub_close(sub, 1000);
	if (rc == SLUICE_E_TIMEOUT)
		return got > 0 ? 0 : complain(cli, rc, "nothing came within the wait");
	return rc == 0 ? 0 : complain(cli, rc, "%s (%s)", sluice_error_text(rc), sluice_error_name(rc));
}
