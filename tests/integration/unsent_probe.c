/* SPDX-License-Identifier: Apache-2.0
 * unsent_probe ADDRESS: publishes 30 messages while nothing listens at ADDRESS, every third with a
 * deadline that passes meanwhile, then prints "waiting". Messages that are reported as not sent
 * must not be stored when the others are. Prints what does not hold; exit code 0: all of it
 * held. */
#include <stdio.h>
#include <string.h>

#include "sluice/client.h"

enum { MANY = 30, PATIENCE_MS = 60000 };

static int sent, unsent, wrong;

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	int code = sluice_reply_code(reply);

	(void)client;
	(void)user;
	sent += code == 0;
	unsent += code == SLUICE_E_TIMEOUT;
	wrong += code != 0 && code != SLUICE_E_TIMEOUT;
}

static bool publish(sluice_client *client, int i)
{
	const unsigned char number = (unsigned char)i;

	return sluice_publish(client, &SLUICE_MESSAGE(.subject = "s.x", .body = {&number, 1}),
			      &SLUICE_CALL(.deadline_ms = number % 3 == 1 ? 1 : -1,
					   .done = on_done),
			      NULL) == 0;
}

static int stored(sluice_client *client)
{
	sluice_sub *sub = NULL;
	int bad =
		sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "s", .from = SLUICE_FROM_FIRST),
			      NULL, &sub);

	for (int i = 0; i < MANY && bad == 0; i++) {
		sluice_delivery *delivery = NULL;

		if (i % 3 == 1)
			continue;
		bad = sluice_sub_next(sub, PATIENCE_MS, &delivery);
		if (bad == 0 &&
		    *(const unsigned char *)sluice_delivery_get(delivery)->body.data != i) {
			(void)printf("another message came in the place of %d\n", i);
			bad = 1;
		}
		sluice_delivery_free(delivery);
	}
	(void)sluice_sub_close(sub, PATIENCE_MS);
	return bad;
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	int bad;

	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "mode", "caller-loop") != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0)
		return 2;
	sluice_config_destroy(config);
	for (int i = 0; i < MANY; i++)
		if (!publish(client, i))
			return 2;
	while (unsent < MANY / 3)
		(void)sluice_process(client, 100);
	(void)printf("waiting\n");
	(void)fflush(stdout);
	while (unsent + sent + wrong < MANY)
		(void)sluice_process(client, 100);
	bad = stored(client);
	(void)printf("sent %d, not sent %d, otherwise %d, stored as they should be: %s\n", sent,
		     unsent, wrong, bad == 0 ? "yes" : "no");
	(void)sluice_close(client, true, PATIENCE_MS);
	return bad != 0 || sent != MANY - MANY / 3 || unsent != MANY / 3;
}
