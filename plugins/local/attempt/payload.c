/* SPDX-License-Identifier: Apache-2.0
 * See payload.h. */
#include "payload.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "payload_bytes.h"
#include "sluice/error.h"

void payload_free(struct payload *payload)
{
	for (size_t i = 0; i < payload->argc; i++)
		free(payload->argv[i]);
	for (size_t i = 0; i < payload->env_count; i++)
		free(payload->env[i]);
	free(payload->cwd);
	free(payload->stdin_path);
	memset(payload, 0, sizeof(*payload));
}

static int __attribute__((format(printf, 4, 5)))
wrong(char *why, size_t why_bytes, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(why, why_bytes, format, args);
	va_end(args);
	return code;
}

/* The kernel refuses more with E2BIG, long after the job was accepted. */
static int count_bytes(struct payload *ret, size_t len, char *why, size_t why_bytes)
{
	if (len > PAYLOAD_WORD_MAX)
		return wrong(why, why_bytes, SLUICE_E_LIMIT,
			     "payload: a word of argv or env has %zu bytes; expected at most %d",
			     len, PAYLOAD_WORD_MAX);
	ret->bytes += len + 1;
	if (ret->bytes > PAYLOAD_BYTES_MAX)
		return wrong(why, why_bytes, SLUICE_E_LIMIT,
			     "payload: argv and env have more than %d bytes", PAYLOAD_BYTES_MAX);
	return 0;
}

static int take_argv(json_t *argv, struct payload *ret, char *why, size_t why_bytes)
{
	size_t i;
	json_t *word;
	int rc;

	if (!json_is_array(argv) || json_array_size(argv) == 0)
		return wrong(why, why_bytes, SLUICE_E_INVAL,
			     "payload: argv is missing or empty; expected a list of strings");
	if (json_array_size(argv) > PAYLOAD_ARGS_MAX)
		return wrong(why, why_bytes, SLUICE_E_LIMIT,
			     "payload: argv has %zu words; expected at most %d",
			     json_array_size(argv), PAYLOAD_ARGS_MAX);
	json_array_foreach(argv, i, word)
	{
		if (!json_is_string(word))
			return wrong(why, why_bytes, SLUICE_E_INVAL,
				     "payload: word %zu of argv is not a string", i);
		ret->argv[i] = strdup(json_string_value(word));
		if (ret->argv[i] == NULL)
			return SLUICE_E_NOMEM;
		ret->argc++;
		payload_bytes_restore(ret->argv[i]);
		rc = count_bytes(ret, strlen(ret->argv[i]), why, why_bytes);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int take_env(json_t *env, struct payload *ret, char *why, size_t why_bytes)
{
	const char *name;
	json_t *value;
	int rc;

	if (env == NULL)
		return 0;
	if (!json_is_object(env))
		return wrong(why, why_bytes, SLUICE_E_INVAL,
			     "payload: env is not an object; expected names with strings");
	if (json_object_size(env) > PAYLOAD_ENV_MAX)
		return wrong(why, why_bytes, SLUICE_E_LIMIT,
			     "payload: env has %zu members; expected at most %d",
			     json_object_size(env), PAYLOAD_ENV_MAX);
	json_object_foreach(env, name, value)
	{
		size_t len;

		if (!json_is_string(value) || name[0] == 0 || strchr(name, '=') != NULL)
			return wrong(why, why_bytes, SLUICE_E_INVAL,
				     "payload: env member '%.60s' is not a name with a string",
				     name);
		len = strlen(name) + strlen(json_string_value(value)) + 2;
		ret->env[ret->env_count] = malloc(len);
		if (ret->env[ret->env_count] == NULL)
			return SLUICE_E_NOMEM;
		(void)snprintf(ret->env[ret->env_count], len, "%s=%s", name,
			       json_string_value(value));
		payload_bytes_restore(ret->env[ret->env_count]);
		rc = count_bytes(ret, strlen(ret->env[ret->env_count++]), why, why_bytes);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* An absolute path, or null for none. */
static int take_path(json_t *json, const char *name, char **ret, char *why, size_t why_bytes)
{
	json_t *value = json_object_get(json, name);

	if (value == NULL || json_is_null(value))
		return 0;
	if (!json_is_string(value) || json_string_value(value)[0] != '/')
		return wrong(why, why_bytes, SLUICE_E_INVAL,
			     "payload: %s is not a path; expected one that begins with '/'", name);
	*ret = strdup(json_string_value(value));
	if (*ret == NULL)
		return SLUICE_E_NOMEM;
	payload_bytes_restore(*ret);
	return 0;
}

static int take_timeout(json_t *value, struct payload *ret, char *why, size_t why_bytes)
{
	if (value == NULL || json_is_null(value))
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 1 ||
	    json_integer_value(value) > PAYLOAD_TIMEOUT_MS_MAX)
		return wrong(why, why_bytes, SLUICE_E_INVAL,
			     "payload: timeout_ms is no time; expected a whole number from 1 to "
			     "%" PRId64,
			     PAYLOAD_TIMEOUT_MS_MAX);
	ret->timeout_ms = json_integer_value(value);
	return 0;
}

static int take(json_t *json, struct payload *ret, char *why, size_t why_bytes)
{
	static const char *const members[] = {"argv", "env", "cwd", "stdin", "timeout_ms"};
	const char *name;
	json_t *value;
	int rc;

	json_object_foreach(json, name, value)
	{
		size_t i = 0;

		while (i < sizeof(members) / sizeof(members[0]) && strcmp(name, members[i]) != 0)
			i++;
		if (i == sizeof(members) / sizeof(members[0]))
			return wrong(why, why_bytes, SLUICE_E_INVAL,
				     "payload: unknown member '%.60s'; expected argv, env, cwd, "
				     "stdin or timeout_ms",
				     name);
	}
	rc = take_argv(json_object_get(json, "argv"), ret, why, why_bytes);
	if (rc == 0)
		rc = take_env(json_object_get(json, "env"), ret, why, why_bytes);
	if (rc == 0)
		rc = take_path(json, "cwd", &ret->cwd, why, why_bytes);
	if (rc == 0)
		rc = take_path(json, "stdin", &ret->stdin_path, why, why_bytes);
	return rc != 0 ? rc
		       : take_timeout(json_object_get(json, "timeout_ms"), ret, why, why_bytes);
}

int payload_parse(const char *text, size_t len, struct payload *ret, char *why, size_t why_bytes)
{
	json_error_t error;
	json_t *json;
	size_t hidden_len;
	char *hidden = payload_bytes_hide(text, len, &hidden_len);
	int rc;

	memset(ret, 0, sizeof(*ret));
	(void)snprintf(why, why_bytes, "out of memory");
	if (hidden == NULL)
		return SLUICE_E_NOMEM;
	json = json_loadb(hidden, hidden_len, JSON_REJECT_DUPLICATES, &error);
	free(hidden);
	if (json == NULL)
		return wrong(why, why_bytes, SLUICE_E_INVAL,
			     "payload: line %d: %s; expected a JSON object with argv", error.line,
			     error.text);
	rc = json_is_object(json) ? take(json, ret, why, why_bytes)
				  : wrong(why, why_bytes, SLUICE_E_INVAL,
					  "payload: not a JSON object; expected {\"argv\": [...]}");
	json_decref(json);
	if (rc != 0)
		payload_free(ret);
	return rc;
}
