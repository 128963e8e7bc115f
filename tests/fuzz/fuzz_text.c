/* SPDX-License-Identifier: Apache-2.0
 * Texts that people write: a setting of the broker, a lifecycle, a local job's payload. The first
 * byte chooses. */
#include "broker/admin/config.h"
#include "client/call/lifecycle_text.h"
#include "fuzz.h"
#include "plugins/local/attempt/payload.h"

static void setting(char *text)
{
	static struct config config;
	char why[256] = "", *equals = strchr(text, '=');

	config_init(&config);
	if (equals == NULL)
		return;
	*equals = 0;
	if (config_set(&config, text, equals + 1, why, sizeof(why)) != 0)
		REQUIRE(why[0] != 0);
}

static void lifecycle(const char *text)
{
	Sluice__LifecycleConfig *config = NULL;
	char why[256] = "";

	if (lifecycle_text_parse(text, &config, why, sizeof(why)) != 0)
		REQUIRE(why[0] != 0);
	else
		lifecycle_text_free(config);
}

static void payload(const char *text, size_t len)
{
	struct payload payload;
	char why[256] = "";

	if (payload_parse(text, len, &payload, why, sizeof(why)) != 0) {
		REQUIRE(why[0] != 0);
		return;
	}
	REQUIRE(payload.argc > 0);
	payload_free(&payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	text = exactly(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (data[0] % 3) {
	case 0:
		setting(text);
		break;
	case 1:
		lifecycle(text);
		break;
	default:
		payload(text, size - 1);
	}
	free(text);
	return 0;
}
