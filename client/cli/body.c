/* SPDX-License-Identifier: Apache-2.0
 * Bodies: an argument, standard input or a file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static int read_all(FILE *file, char **ret, size_t *ret_len)
{
	size_t capacity = 65536, len = 0, got;
	char *bytes = malloc(capacity);

	while (bytes != NULL && (got = fread(bytes + len, 1, capacity - len - 1, file)) > 0) {
		len += got;
		if (capacity - len < 2) {
			char *grown = realloc(bytes, capacity *= 2);

			if (grown == NULL)
				free(bytes);
			bytes = grown;
		}
	}
	if (bytes == NULL)
		return SLUICE_E_NOMEM;
	bytes[len] = 0;
	*ret = bytes;
	*ret_len = len;
	return ferror(file) ? SLUICE_E_IO : 0;
}

int body_read(struct cli *cli, const char *word, char **ret, size_t *ret_len)
{
	FILE *file;
	int rc;

	*ret = NULL;
	if (strcmp(word, "-") == 0) {
		rc = read_all(stdin, ret, ret_len);
		return rc == SLUICE_E_IO
			       ? report_error(cli, rc, "standard input: %s", strerror(errno))
			       : rc;
	}
	if (word[0] != '@') {
		*ret = strdup(word);
		*ret_len = strlen(word);
		return *ret != NULL ? 0 : SLUICE_E_NOMEM;
	}
	file = fopen(word + 1, "re");
	if (file == NULL)
		return report_error(cli, SLUICE_E_NOT_FOUND, "%s: %s", word + 1, strerror(errno));
	rc = read_all(file, ret, ret_len);
	if (rc == SLUICE_E_IO)
		(void)report_error(cli, rc, "%s: %s", word + 1, strerror(errno));
	(void)fclose(file);
	return rc;
}
