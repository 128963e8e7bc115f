/* SPDX-License-Identifier: Apache-2.0
 * See lifecycle_text.h. */
#include "client/call/lifecycle_text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "client/base/memory.h"
#include "sluice/error.h"
#include "sluice.pb-c.h"

void lifecycle_text_free(Sluice__LifecycleConfig *config)
{
	if (config != NULL)
		sluice__lifecycle_config__free_unpacked(config, &mem_protobuf);
}

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && isspace((unsigned char)end[-1]))
		*--end = 0;
	while (isspace((unsigned char)*text))
		text++;
	return text;
}

static int list_add(char ***list, size_t *count, const char *text)
{
	char **grown = mem_resize(*list, (*count + 1) * sizeof(char *));

	if (grown == NULL)
		return SLUICE_E_NOMEM;
	*list = grown;
	grown[*count] = mem_text(text, strlen(text));
	if (grown[*count] == NULL)
		return SLUICE_E_NOMEM;
	(*count)++;
	return 0;
}

static int state_add(Sluice__LifecycleConfig *config, char *name, bool terminal, char *next)
{
	Sluice__LifecycleState **states =
		mem_resize(config->states, (config->n_states + 1) * sizeof(*states));
	Sluice__LifecycleState *state = states != NULL ? mem_alloc(sizeof(*state)) : NULL;
	char *save = NULL;
	int rc = 0;

	if (states != NULL)
		config->states = states;
	if (state == NULL)
		return SLUICE_E_NOMEM;
	sluice__lifecycle_state__init(state);
	states[config->n_states++] = state;
	state->terminal = terminal;
	state->name = mem_text(name, strlen(name));
	if (state->name == NULL)
		return SLUICE_E_NOMEM;
	for (char *word = next != NULL ? strtok_r(next, ",", &save) : NULL; word != NULL && rc == 0;
	     word = strtok_r(NULL, ",", &save))
		rc = list_add(&state->next, &state->n_next, trim(word));
	return rc;
}

static int replace(char **field, const char *value)
{
	char *copy = mem_text(value, strlen(value));

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	if ((*field)[0] != 0)
		mem_free(*field);
	*field = copy;
	return 0;
}

static int statement(Sluice__LifecycleConfig *config, char *line, char *why, size_t why_bytes)
{
	char *word = line, *rest = line, *arrow;

	while (*rest != 0 && !isspace((unsigned char)*rest))
		rest++;
	if (*rest != 0)
		*rest++ = 0;
	rest = trim(rest);
	if (rest[0] == 0) {
		(void)snprintf(why, why_bytes, "'%.60s' has nothing behind it", word);
		return SLUICE_E_INVAL;
	}
	if (strcmp(word, "lifecycle") == 0)
		return replace(&config->name, rest);
	if (strcmp(word, "description") == 0)
		return replace(&config->description, rest);
	if (strcmp(word, "cancelled") == 0)
		return replace(&config->cancelled, rest);
	if (strcmp(word, "failed") == 0)
		return replace(&config->failed, rest);
	if (strcmp(word, "terminal") == 0)
		return state_add(config, rest, true, NULL);
	if (strcmp(word, "state") == 0) {
		arrow = strstr(rest, "->");
		if (arrow != NULL) {
			*arrow = 0;
			arrow += 2;
		}
		return state_add(config, trim(rest), false, arrow);
	}
	(void)snprintf(why, why_bytes,
		       "'%.60s'; expected lifecycle, description, state, terminal, cancelled or "
		       "failed",
		       word);
	return SLUICE_E_INVAL;
}

int lifecycle_text_parse(const char *text, Sluice__LifecycleConfig **ret, char *why,
			 size_t why_bytes)
{
	char *copy = mem_text(text != NULL ? text : "", text != NULL ? strlen(text) : 0),
	     *rest = copy;
	Sluice__LifecycleConfig *config = mem_alloc(sizeof(*config));
	char what[160] = "out of memory";
	unsigned number = 0;
	int rc = copy == NULL || config == NULL ? SLUICE_E_NOMEM : 0;

	if (config != NULL)
		sluice__lifecycle_config__init(config);
	while (rc == 0 && rest != NULL && *rest != 0) {
		char *line = strsep(&rest, "\n"), *comment = strchr(line, '#');

		number++;
		if (comment != NULL)
			*comment = 0;
		line = trim(line);
		if (line[0] != 0)
			rc = statement(config, line, what, sizeof(what));
	}
	mem_free(copy);
	if (rc == 0 && config->name[0] == 0) {
		(void)snprintf(why, why_bytes,
			       "the lifecycle has no name; expected a line 'lifecycle NAME'");
		rc = SLUICE_E_INVAL;
	} else if (rc != 0) {
		(void)snprintf(why, why_bytes, "line %u: %s", number, what);
	}
	if (rc != 0) {
		lifecycle_text_free(config);
		return rc;
	}
	*ret = config;
	return 0;
}
