/* SPDX-License-Identifier: Apache-2.0
 *
 * A follower inside a libevent loop: prints the events of stream "events" up to the last one.
 *
 *   cc libevent_loop.c $(pkg-config --cflags --libs sluice libevent_core) -o libevent_loop
 *   ./libevent_loop 127.0.0.1:7584
 *
 * In caller-loop mode the library has no thread. Its descriptor becomes readable when there is
 * something to do, timers and reconnects included. sluice_process(client, 0) does it without
 * waiting, and all callbacks come from inside of that call.
 */
#include <event2/event.h>
#include <stdio.h>
#include <sluice/client.h>

struct follower {
	struct event_base *base;
	sluice_client *client;
	int rc;
};

static void finish(struct follower *follower, int rc)
{
	follower->rc = rc;
	(void)event_base_loopbreak(follower->base);
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
	struct follower *follower = user;
	int rc = sluice_process(follower->client, 0);

	(void)fd, (void)what;
	if (rc != 0)
		finish(follower, rc);
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *delivery, void *user)
{
	(void)sub;
	if (delivery->kind == SLUICE_DELIVERY_EVENT)
		(void)printf("%s: %.*s\n", delivery->subject, (int)delivery->body.len,
			     (const char *)delivery->body.data);
	else if (delivery->kind == SLUICE_DELIVERY_GAP) /* removed by the stream's retention */
		(void)printf("some events are gone; next is %llu\n",
			     (unsigned long long)delivery->to_offset);
	else if (delivery->kind == SLUICE_DELIVERY_CAUGHT_UP)
		finish(user, 0);
	else if (delivery->kind == SLUICE_DELIVERY_END) /* for example: the stream was deleted */
		finish(user, delivery->code);
}

/* The answer of the asynchronous sluice_follow(). */
static void on_open(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	if (sluice_reply_code(reply) != 0)
		finish(user, sluice_reply_code(reply));
}

int main(int argc, char **argv)
{
	struct follower follower = {.base = event_base_new()};
	const sluice_follow_spec spec =
		SLUICE_FOLLOW_SPEC(.stream = "events", .from = SLUICE_FROM_FIRST,
				   .on_delivery = on_delivery, .user = &follower);
	const sluice_call call = SLUICE_CALL(.done = on_open, .user = &follower);
	sluice_config *config = sluice_config_create();
	struct event *readable = NULL;
	sluice_sub *sub = NULL;
	int rc = config != NULL && follower.base != NULL ? 0 : SLUICE_E_NOMEM;

	if (rc == 0)
		rc = sluice_config_set(config, "address", argc > 1 ? argv[1] : "127.0.0.1:7584");
	if (rc == 0)
		rc = sluice_config_set(config, "mode", "caller-loop");
	if (rc == 0)
		rc = sluice_open(config, NULL, NULL, &follower.client);
	if (rc == 0)
		rc = sluice_follow(follower.client, &spec, &call, &sub);
	if (rc == 0) {
		readable = event_new(follower.base, sluice_fd(follower.client),
				     EV_READ | EV_PERSIST, on_readable, &follower);
		rc = readable != NULL && event_add(readable, NULL) == 0 ? 0 : SLUICE_E_NOMEM;
	}
	if (rc == 0)
		rc = event_base_dispatch(follower.base) == 0 ? follower.rc : SLUICE_E_IO;
	if (rc != 0)
		(void)fprintf(stderr, "libevent_loop: %s\n", sluice_error_text(rc));
	if (readable != NULL)
		event_free(readable);
	(void)sluice_sub_close(sub, 1000);
	(void)sluice_close(follower.client, true, 5000);
	sluice_config_destroy(config);
	if (follower.base != NULL)
		event_base_free(follower.base);
	return sluice_error_exit_code(rc);
}
