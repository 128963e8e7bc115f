/* SPDX-License-Identifier: Apache-2.0
 *
 * A consumer in a loop of poll() that waits for something else as well: it prints and acknowledges
 * the items of queue "work" until standard input is closed.
 *
 *   cc poll_loop.c $(pkg-config --cflags --libs sluice) -o poll_loop
 *   ./poll_loop 127.0.0.1:7584       # Ctrl-D ends it
 *
 * In caller-loop mode the library has no thread. Poll its descriptor for POLLIN and nothing else,
 * and call sluice_process(client, 0) when it is readable; all callbacks come from inside of that
 * call. A call that waits (here: create, drain, close) runs the loop itself until its deadline.
 */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include <sluice/client.h>

static void on_item(sluice_sub *sub, const sluice_delivery_view *item, void *user)
{
	int *rc = user;

	if (item->kind == SLUICE_DELIVERY_END)
		*rc = item->code;
	if (item->kind != SLUICE_DELIVERY_ITEM)
		return;
	(void)printf("%s: %.*s\n", item->subject, (int)item->body.len,
		     (const char *)item->body.data);
	/* Nobody waits for this answer; a refusal comes to on_notice. */
	*rc = sluice_item_ack(sub, item->token, item->seq, &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client, (void)user;
	if (notice->kind == SLUICE_NOTICE_ERROR || notice->kind == SLUICE_NOTICE_DAMAGED)
		(void)fprintf(stderr, "poll_loop: %s\n", notice->text);
	else if (notice->kind == SLUICE_NOTICE_DISCONNECTED)
		(void)fprintf(stderr, "poll_loop: disconnected; the library connects again\n");
}

/* *failed is set by the callbacks. */
static int loop(sluice_client *client, const int *failed)
{
	struct pollfd fds[2] = {{.fd = sluice_fd(client), .events = POLLIN},
				{.fd = STDIN_FILENO, .events = POLLIN}};
	char ignored[256];
	int rc = 0;

	while (rc == 0 && *failed == 0) {
		if (poll(fds, 2, -1) < 0)
			return SLUICE_E_IO;
		if (fds[0].revents != 0)
			rc = sluice_process(client, 0);
		if (fds[1].revents != 0 && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0)
			break;
	}
	return rc != 0 ? rc : *failed;
}

int main(int argc, char **argv)
{
	int failed = 0;
	const sluice_consume_spec spec =
		SLUICE_CONSUME_SPEC(.queue = "work", .on_delivery = on_item, .user = &failed);
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *sub = NULL;
	int rc = config != NULL ? 0 : SLUICE_E_NOMEM;

	if (rc == 0)
		rc = sluice_config_set(config, "address", argc > 1 ? argv[1] : "127.0.0.1:7584");
	if (rc == 0)
		rc = sluice_config_set(config, "mode", "caller-loop");
	if (rc == 0)
		rc = sluice_open(config, on_notice, NULL, &client);
	if (rc == 0)
		rc = sluice_consume(client, &spec, NULL, &sub);
	if (rc == 0)
		rc = loop(client, &failed);
	if (rc == 0)
		rc = sluice_sub_drain(sub, 5000); /* takes no more, and waits for the acks */
	if (rc != 0)
		(void)fprintf(stderr, "poll_loop: %s\n", sluice_error_text(rc));
	(void)sluice_sub_close(sub, 5000);
	(void)sluice_close(client, true, 5000);
	sluice_config_destroy(config);
	return sluice_error_exit_code(rc);
}
