/* SPDX-License-Identifier: Apache-2.0
 * Commands: a decoded command is encoded again to the same bytes (canonical), whatever its body
 * is. */
#include "broker/core/command.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct command *command = NULL, *copy = NULL;
	const char *why = NULL;
	uint8_t *bytes, *again;
	size_t len;

	if (command_decode((struct sluice_slice){data, size}, &command, &why) != 0) {
		REQUIRE(why != NULL);
		return 0;
	}
	/* The input may have another order of fields or unknown fields; from here on the command is
	 * canonical. */
	len = command_size(command);
	bytes = exactly(len);
	REQUIRE(command_encode(bytes, command) == len);
	REQUIRE(command_decode((struct sluice_slice){bytes, len}, &copy, &why) == 0);
	REQUIRE(command_size(copy) == len);
	again = exactly(len);
	REQUIRE(command_encode(again, copy) == len && memcmp(bytes, again, len) == 0);
	free(bytes);
	free(again);
	command_free(command);
	command_free(copy);
	return 0;
}
