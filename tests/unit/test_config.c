/* SPDX-License-Identifier: Apache-2.0
 * Settings: lists, and where the broker listens. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/admin/config.h"
#include "broker/admin/listen.h"

static char why[512];

static void set(struct config *config, const char *value)
{
	cr_assert_eq(config_set(config, "listen", value, why, sizeof(why)), 0, "%s", why);
}

static void load(struct config *config, const char *text)
{
	char path[] = "/tmp/sluice-config-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
	cr_assert_eq(config_load(config, path, why, sizeof(why)), 0, "%s", why);
	(void)unlink(path);
}

static void expect(const struct config *config, const char *first, const char *second)
{
	cr_assert_eq(config->listen.count, second != NULL ? 2u : 1u, "%zu", config->listen.count);
	cr_assert_str_eq(config->listen_values[0], first);
	if (second != NULL)
		cr_assert_str_eq(config->listen_values[1], second);
}

Test(config, the_values_of_a_list_replace_those_of_the_source_before)
{
	static struct config config;

	config_init(&config);
	expect(&config, "127.0.0.1:7584", NULL);
	set(&config, "127.0.0.1:1");
	set(&config, "127.0.0.1:2");
	expect(&config, "127.0.0.1:1", "127.0.0.1:2");
	load(&config, "zstd = no\n");
	expect(&config, "127.0.0.1:1", "127.0.0.1:2");
	load(&config, "listen = 127.0.0.1:3\nlisten = 127.0.0.1:4\n");
	expect(&config, "127.0.0.1:3", "127.0.0.1:4");
	set(&config, "127.0.0.1:5");
	expect(&config, "127.0.0.1:5", NULL);
}

Test(config, a_list_has_a_bound)
{
	static struct config config;

	config_init(&config);
	for (int n = 0; n < 16; n++)
		set(&config, "127.0.0.1:0");
	cr_assert_eq(config_set(&config, "listen", "127.0.0.1:0", why, sizeof(why)),
		     SLUICE_E_LIMIT);
	cr_assert_not_null(strstr(why, "listen"), "%s", why);
	cr_assert_eq(config.listen.count, 16u);
}

static struct listen_at parsed(const char *text)
{
	struct listen_at at;

	cr_assert_eq(listen_parse(text, &at, why, sizeof(why)), 0, "%s", why);
	return at;
}

Test(config, an_address_to_listen_on_is_parsed)
{
	struct listen_at at = parsed("[::1]:7584");

	cr_expect_str_eq(at.host, "::1");
	cr_expect_eq(at.port, 7584);
	cr_expect(listen_is_local(&at));
	at = parsed("localhost:0");
	cr_expect_str_eq(at.host, "127.0.0.1");
	cr_expect(listen_is_local(&at));
	at = parsed("0.0.0.0:65535");
	cr_expect_eq(at.port, 65535);
	cr_expect(!listen_is_local(&at));
	at = parsed("[::]:1");
	cr_expect(!listen_is_local(&at));
	at = parsed("127.example.org:1");
	cr_expect(!listen_is_local(&at));
}

Test(config, a_unix_socket_to_listen_on_is_parsed)
{
	char text[LISTEN_TEXT_BYTES], longest[5 + 108 + 1] = "unix:/";
	struct listen_at at = parsed("unix:/run/a b:c/s.sock");

	cr_expect_str_eq(at.path, "/run/a b:c/s.sock");
	cr_expect_str_eq(listen_text(&at, text), "unix:/run/a b:c/s.sock");
	cr_expect(listen_is_local(&at));
	memset(longest + 6, 'x', 106);
	at = parsed(longest);
	cr_expect_eq(strlen(at.path), 107u);
	cr_expect_str_eq(listen_text(&at, text), longest);
	memset(longest + 6, 'x', 107);
	cr_expect_eq(listen_parse(longest, &at, why, sizeof(why)), SLUICE_E_INVAL);
	at = parsed("127.0.0.1:7584");
	cr_expect_str_eq(listen_text(&at, text), "127.0.0.1:7584");
}

Test(config, what_is_no_address_is_refused_with_its_text)
{
	static const char *const wrong[] = {"",
					    ":",
					    "127.0.0.1",
					    "127.0.0.1:",
					    ":7584",
					    "127.0.0.1:65536",
					    "127.0.0.1:1x",
					    "127.0.0.1:-1"};
	struct listen_at at;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		cr_expect_eq(listen_parse(wrong[i], &at, why, sizeof(why)), SLUICE_E_INVAL, "%s",
			     wrong[i]);
		cr_expect_not_null(strstr(why, wrong[i]), "%s", why);
	}
}
