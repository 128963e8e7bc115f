/* SPDX-License-Identifier: Apache-2.0
 * The `sluice` command: arguments, options, connection, help. */
#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "visible.h"

static const struct command commands[] = {
	{"pub",
	 "SUBJECT BODY|-|@FILE [--key K] [--id ID] [--header N=V]... [--stream S] [--lines] "
	 "[--allow-unrouted]",
	 "publish an event; --lines: one per line of standard input\n"
	 "If nothing is bound to SUBJECT, the command fails with NO_ROUTE and exit code 4, unless\n"
	 "--allow-unrouted is given. ID is stored with the event for its readers; the broker does\n"
	 "not compare it: two publishes with the same --id are two events",
	 "key= id= header= stream= lines mandatory allow-unrouted", 1, 2, cmd_pub},
	{"put",
	 "QUEUE SUBJECT BODY|-|@FILE [--key K] [--id ID] [--header N=V]... [--priority N] "
	 "[--lines]",
	 "put an item into a queue\n"
	 "ID is stored with the item and not compared: two puts with the "
	 "same --id are two items",
	 "key= id= header= priority= lines", 2, 3, cmd_put},
	{"follow",
	 "STREAM [--from first|last|new|OFFSET|-1h|TIME|cursor:NAME] [--filter PATTERN] [--count "
	 "N] "
	 "[--until-caught-up]",
	 "print a stream's events", "from= filter= count= until-caught-up", 1, 1, cmd_follow},
	{"claim", "QUEUE [--count N] [--ack|--release] [--wait 10s] [--lease 30s]",
	 "claim items and print them\n"
	 "--ack removes the items. --release returns them to the queue "
	 "without counting an attempt. Without\n"
	 "either, they return when the lease ends",
	 "count= ack release wait= lease=", 1, 1, cmd_claim},
	{"job submit",
	 "--queue Q [--id ID] [--lifecycle L] [--owner O] [--priority N] PAYLOAD|-|@FILE",
	 "submit a job; the same id with the same content succeeds again",
	 "queue= id= lifecycle= owner= priority=", 1, 1, cmd_job_submit},
	{"job ls", "[--state S] [--queue Q] [--claim C] [--open] [--after NUMBER] [--max N]",
	 "list jobs; --after: only those with larger numbers",
	 "state= queue= claim= open after= max=", 0, 0, cmd_job_ls},
	{"job show", "JOB [--payload]", "show a job", "payload", 1, 1, cmd_job_show},
	{"job wait", "JOB [--number N] [--timeout 10s]",
	 "wait until a job has ended; --number: fail if the id belongs to "
	 "a job with another number",
	 "number=", 1, 1, cmd_job_wait},
	{"job cancel", "JOB [--reason TEXT]", "cancel a job", "reason=", 1, 1, cmd_job_cancel},
	{"job reset", "JOB [--force] [--reason TEXT]",
	 "start a new attempt of a job that has ended; --force: also of "
	 "one that has not",
	 "force reason=", 1, 1, cmd_job_reset},
	{"job report",
	 "JOB [--state S] [--number N] [--attempt N] [--token T] [--source TEXT] [--evidence TEXT] "
	 "[--reference R] "
	 "[--exit-code N] [--seen TIME]",
	 "report an observation of a job, as a scheduler does\n"
	 "Without --attempt and --token the report is for the current "
	 "attempt of a job that exists.\n"
	 "With --attempt it may come before the job: it is parked, and applied "
	 "when the job is submitted",
	 "state= number= attempt= token= source= evidence= reference= exit-code= seen=", 1, 1,
	 cmd_job_report},
	{"job release", "JOB [--token T] [--delay 10s] [--reason TEXT]",
	 "return a job whose work was not started from its holder to the "
	 "queue",
	 "token= delay= reason=", 1, 1, cmd_job_release},
	{"job history", "JOB", "show the history of a job", "", 1, 1, cmd_job_history},
	{"job explain", "JOB", "explain the present state of a job", "", 1, 1, cmd_job_explain},
	{"stream ls", "", "list streams", "", 0, 0, cmd_stream_ls},
	{"stream show", "NAME", "show a stream", "", 1, 1, cmd_stream_show},
	{"stream create",
	 "NAME [--subject PATTERN]... [--max-age 7d] [--max-bytes N] [--max-events N] "
	 "[--if-not-exists]",
	 "create a stream", "subject= max-age= max-bytes= max-events= if-not-exists", 1, 1,
	 cmd_stream_create},
	{"stream rm", "NAME [--yes]", "delete a stream with its events", "", 1, 1, cmd_rm},
	{"queue ls", "", "list queues", "", 0, 0, cmd_queue_ls},
	{"queue show", "NAME", "show a queue", "", 1, 1, cmd_queue_show},
	{"queue create",
	 "NAME [--jobs] [--subject PATTERN]... [--lease 30s] [--max-attempts N] [--dead-letter Q] "
	 "[--max-items N] [--priority] [--lifecycle L] [--if-not-exists]",
	 "create a queue of items, or of jobs",
	 "jobs subject= lease= max-attempts= dead-letter= max-items= priority lifecycle= "
	 "if-not-exists",
	 1, 1, cmd_queue_create},
	{"queue alter",
	 "NAME [--lease 30s] [--max-attempts N] [--dead-letter Q] [--max-items N] [--lifecycle L]",
	 "change a queue; options that are not given keep their values",
	 "lease= max-attempts= dead-letter= max-items= lifecycle=", 1, 1, cmd_queue_alter},
	{"queue purge", "NAME [--yes]", "drop the ready items of a queue and print their number",
	 "", 1, 1, cmd_queue_purge},
	{"queue peek", "NAME [--state ready|leased|delayed] [--after ITEM] [--max N]",
	 "show items without claiming them; --after: only those with "
	 "larger numbers",
	 "state= after= max=", 1, 1, cmd_queue_peek},
	{"queue rm", "NAME [--yes]", "delete a queue with its items", "", 1, 1, cmd_rm},
	{"lifecycle ls", "", "list lifecycles", "", 0, 0, cmd_lifecycle_ls},
	{"lifecycle show", "NAME", "show a lifecycle", "", 1, 1, cmd_lifecycle_show},
	{"lifecycle create", "FILE|- [--if-not-exists]",
	 "create a lifecycle from a file (format: client/README.md)", "if-not-exists", 1, 1,
	 cmd_lifecycle_create},
	{"lifecycle rm", "NAME [--yes]", "delete a lifecycle that no job uses", "", 1, 1, cmd_rm},
	{"quarantine ls", "[--job JOB] [--after N] [--max N]", "list stale and illegal reports",
	 "job= after= max=", 0, 0, cmd_quarantine_ls},
	{"status", "", "show the status of the broker", "", 0, 0, cmd_status},
	{"session ls", "", "list sessions, with the address that opened each", "", 0, 0,
	 cmd_session_ls},
	{"session close", "NAME|NUMBER",
	 "end a session: its items return, its jobs become orphans\n"
	 "Its connection is closed. The argument is tried as a name first, "
	 "then as a number",
	 "", 1, 1, cmd_session_close},
	{"audit", "[--silent 1d] [--orphan 1h]",
	 "check the ledger of jobs and report findings\n"
	 "Every open job must be held, waiting or queued. Findings are "
	 "also leases without a report for\n"
	 "--silent and orphans that no consumer took for --orphan",
	 "silent= orphan=", 0, 0, cmd_audit},
	{NULL, NULL, NULL, NULL, 0, 0, NULL},
};

/* ---- help and errors ---- */

/* In a list a command has one line: the first of its text. */
static void list_row(FILE *to, int width, const struct command *command)
{
	(void)fprintf(to, "  %-*s %.*s\n", width, command->name, (int)strcspn(command->text, "\n"),
		      command->text);
}

static int help(FILE *to)
{
	(void)fprintf(to,
		      "usage: sluice [--address HOST:PORT|tls:HOST:PORT|unix:PATH] [--tls "
		      "auto|verify-full|off]\n"
		      "              [--tls-ca FILE] [--gateway G] [--timeout 10s] [-o table|json] "
		      "[-v] COMMAND ...\n\n");
	for (const struct command *command = commands; command->name != NULL; command++)
		list_row(to, 15, command);
	(void)fprintf(to, "\n"
			  "`sluice COMMAND --help` shows a command's options. "
			  "SLUICE_ADDRESS, SLUICE_TLS, SLUICE_TLS_CA and SLUICE_GATEWAY are the "
			  "defaults of the first options.\n"
			  "Exit codes: 0 done, 2 usage error, 4 not found, 5 conflict, 6 "
			  "stale or cancelled, 7 full or busy, 9 timeout, 10 no broker; "
			  "others: error.h.\n");
	return 0;
}

static int help_for(const struct command *command, FILE *to)
{
	(void)fprintf(to, "usage: sluice %s %s\n%s\n", command->name, command->usage,
		      command->text);
	return 0;
}

/* ---- words ---- */

/* Whether a command has an option: 0 no, 1 flag, 2 with a value. A "=VALUE" is not part of the
 * name. */
static int option_kind(const struct command *command, const char *name)
{
	size_t len = strcspn(name, "=");

	for (const char *at = command->options; *at != 0;) {
		size_t word = strcspn(at, " ");

		if (word == len + 1 && at[len] == '=' && strncmp(at, name, len) == 0)
			return 2;
		if (word == len && strncmp(at, name, len) == 0)
			return 1;
		at += word;
		at += strspn(at, " ");
	}
	return 0;
}

/* Options of every command, "--name value" or "--name=value". 0: not one of them; 1, 2: arguments
 * used; negative: error, reported. */
static int global_option(struct cli *cli, char **argv, int left)
{
	static const char *const names[] = {"--address", "--gateway", "--tls",
					    "--tls-ca",	 "--timeout", "-o"};
	const char *word = argv[0], *name = NULL, *value = NULL;
	int used = 2;
	uint64_t ms;

	if (strcmp(word, "-v") == 0)
		return (cli->verbose = true);
	if (strcmp(word, "--yes") == 0)
		return (cli->yes = true);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && name == NULL; i++) {
		size_t len = strlen(names[i]);

		if (strncmp(word, names[i], len) != 0 || (word[len] != 0 && word[len] != '='))
			continue;
		name = names[i];
		used = word[len] == '=' ? 1 : 2;
		value = word[len] == '=' ? word + len + 1 : left > 1 ? argv[1] : NULL;
	}
	if (name == NULL)
		return 0;
	if (value == NULL)
		return report_error(cli, SLUICE_E_INVAL, "%s needs a value", name);
	if (strcmp(name, "--address") == 0)
		cli->address = value;
	else if (strcmp(name, "--gateway") == 0)
		cli->gateway = value;
	else if (strcmp(name, "--tls") == 0)
		cli->tls = value;
	else if (strcmp(name, "--tls-ca") == 0)
		cli->tls_ca = value;
	else if (strcmp(name, "-o") == 0 &&
		 (strcmp(value, "json") == 0 || strcmp(value, "table") == 0))
		cli->json = value[0] == 'j';
	else if (strcmp(name, "--timeout") == 0 && duration_parse(value, &ms) && ms > 0 &&
		 ms <= 86400000)
		cli->timeout_ms = (int)ms;
	else
		return report_error(cli, SLUICE_E_INVAL, "%s is '%s'; expected %s", name, value,
				    name[1] == 'o' ? "table or json"
						   : "a duration from 1ms to 24h, such as 10s");
	return used;
}

/* Errors before -o is reached have its format, too. */
static bool wants_json(int argc, char **argv)
{
	bool json = false;

	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strncmp(argv[i], "-o=", 3) == 0 || (strcmp(argv[i], "-o") == 0 && i + 1 < argc))
			json = strcmp(argv[i][2] == '=' ? argv[i] + 3 : argv[i + 1], "json") == 0;
	return json;
}

/* Help for the commands of a noun, "job": for `sluice job` and `sluice job --help`. Returns their
 * number. */
static int help_noun(const char *noun, FILE *to)
{
	size_t len = strlen(noun);
	int count = 0;

	for (const struct command *command = commands; command->name != NULL; command++) {
		if (strncmp(command->name, noun, len) != 0 || command->name[len] != ' ')
			continue;
		if (to != NULL && count == 0)
			(void)fprintf(to, "usage: sluice %s COMMAND ...\n\n", noun);
		if (to != NULL)
			list_row(to, 18, command);
		count++;
	}
	if (to != NULL && count > 0)
		(void)fprintf(to, "\n`sluice %s COMMAND --help` shows a command's options.\n",
			      noun);
	return count;
}

static bool is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

static const struct command *find(const char *first, const char *second)
{
	char both[64];

	(void)snprintf(both, sizeof(both), "%s %s", first, second != NULL ? second : "");
	for (const struct command *command = commands; command->name != NULL; command++)
		if (strcmp(command->name, strchr(command->name, ' ') != NULL ? both : first) == 0)
			return command;
	return NULL;
}

/* One of the command's own options, "--name value" or "--name=value". Returns the arguments used,
 * or negative: error, reported. */
static int option_take(struct cli *cli, const struct command *command, char **argv, int left)
{
	int kind = argv[0][1] == '-' ? option_kind(command, argv[0] + 2) : 0;
	char *equals = strchr(argv[0], '=');
	const char *wrong = kind == 0				       ? "is unknown"
			    : kind == 1 && equals != NULL	       ? "takes no value"
			    : kind == 2 && equals == NULL && left == 1 ? "needs a value"
			    : cli->option_count == OPTIONS_MAX	       ? "is one option too many"
								       : NULL;

	if (wrong != NULL)
		return report_error(cli, SLUICE_E_INVAL, "%s %s; usage: sluice %s %s", argv[0],
				    wrong, command->name, command->usage);
	if (equals != NULL)
		*equals = 0;
	cli->options[cli->option_count].name = argv[0] + 2;
	cli->options[cli->option_count++].value = kind == 1	   ? ""
						  : equals != NULL ? equals + 1
								   : argv[1];
	return equals != NULL ? 1 : kind;
}

static int take_words(struct cli *cli, const struct command *command, char **argv, int count)
{
	bool raw = false;

	for (int i = 0; i < count;) {
		int used = raw ? 0 : global_option(cli, argv + i, count - i), kind;

		if (used < 0)
			return used;
		if (used > 0) {
			i += used;
			continue;
		}
		if (!raw && strcmp(argv[i], "--") == 0) {
			raw = true;
			i++;
			continue;
		}
		if (raw || argv[i][0] != '-' ||
		    (argv[i][1] != '-' && !isalpha((unsigned char)argv[i][1]))) {
			if (cli->arg_count == command->args_max)
				return report_error(cli, SLUICE_E_INVAL,
						    "unexpected argument '%s'; usage: sluice %s %s",
						    argv[i], command->name, command->usage);
			cli->args[cli->arg_count++] = argv[i++];
			continue;
		}
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			cli->help = true;
			return 0;
		}
		kind = option_take(cli, command, argv + i, count - i);
		if (kind < 0)
			return kind;
		i += kind;
	}
	if (cli->arg_count < command->args_min)
		return report_error(cli, SLUICE_E_INVAL,
				    "an argument is missing; usage: sluice %s %s", command->name,
				    command->usage);
	return 0;
}

/* A noun alone, or with an unknown verb; or no noun at all. */
static int no_command(struct cli *cli, const char *first, const char *second)
{
	int verbs = help_noun(first, NULL);

	if (verbs > 0 && second != NULL && is_help(second)) {
		(void)help_noun(first, stdout);
		return 0;
	}
	if (verbs > 0 && second == NULL && !cli->json) {
		(void)help_noun(first, stderr);
		cli->reported = true;
		return SLUICE_E_INVAL;
	}
	if (verbs > 0)
		return report_error(cli, SLUICE_E_INVAL,
				    "unknown command '%s%s%s'; `sluice %s --help` lists those of "
				    "%s",
				    first, second != NULL ? " " : "", second != NULL ? second : "",
				    first, first);
	return report_error(cli, SLUICE_E_INVAL,
			    "unknown command '%s%s%s'; `sluice --help` lists all", first,
			    second != NULL ? " " : "", second != NULL ? second : "");
}

static int run(struct cli *cli, int argc, char **argv)
{
	const struct command *command;
	int at = 0, rc, words;

	while (at < argc) {
		rc = global_option(cli, argv + at, argc - at);
		if (rc < 0)
			return rc;
		if (rc == 0)
			break;
		at += rc;
	}
	if (at == argc && !cli->json) {
		cli->reported = true;
		return help(stderr) == 0 ? SLUICE_E_INVAL : SLUICE_E_IO;
	}
	if (at == argc)
		return report_error(cli, SLUICE_E_INVAL,
				    "the command is missing; `sluice --help` lists all");
	if (is_help(argv[at]))
		return help(stdout);
	if (strcmp(argv[at], "--version") == 0)
		return printf("sluice %s\n", sluice_version()) > 0 ? 0 : SLUICE_E_IO;
	command = find(argv[at], at + 1 < argc ? argv[at + 1] : NULL);
	if (command == NULL)
		return no_command(cli, argv[at], at + 1 < argc ? argv[at + 1] : NULL);
	words = strchr(command->name, ' ') != NULL ? 2 : 1;
	/* `rm` needs the kind of the object. */
	if (command->run == cmd_rm) {
		cli->options[cli->option_count].name = "thing";
		cli->options[cli->option_count++].value = argv[at];
	}
	rc = take_words(cli, command, argv + at + words, argc - at - words);
	if (rc != 0)
		return rc;
	return cli->help ? help_for(command, stdout) : command->run(cli);
}

/* A socket would get the number of a closed standard descriptor, and output would be written into
 * it. Such descriptors are opened so that reads and writes fail as on the closed ones. */
static void standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
			_exit(sluice_error_exit_code(SLUICE_E_IO));
}

int main(int argc, char **argv)
{
	struct cli cli = {.timeout_ms = 10000};
	const char *address = getenv("SLUICE_ADDRESS"), *gateway = getenv("SLUICE_GATEWAY");
	const char *tls = getenv("SLUICE_TLS"), *tls_ca = getenv("SLUICE_TLS_CA");
	int rc;

	cli.address = address != NULL && address[0] != 0 ? address : "127.0.0.1:7584";
	cli.gateway = gateway != NULL ? gateway : "";
	cli.tls = tls != NULL && tls[0] != 0 ? tls : "auto";
	cli.tls_ca = tls_ca != NULL ? tls_ca : "";
	standard_descriptors();
	visible_terminals();
	cli.json = wants_json(argc - 1, argv + 1);
	rc = run(&cli, argc - 1, argv + 1);
	if (cli.client != NULL)
		(void)sluice_close(cli.client, true, 2000);
	if (rc == 0)
		rc = written(&cli);
	else if (!cli.reported)
		(void)report_error(&cli, rc, "%s (%s)", sluice_error_text(rc),
				   sluice_error_name(rc));
	return sluice_error_exit_code(rc);
}
