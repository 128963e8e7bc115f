/* SPDX-License-Identifier: Apache-2.0
 *
 * The same calls from C++17, with owners that free and errors that are thrown: publishes an event
 * and prints stream "events".
 *
 *   c++ -std=c++17 cplusplus.cc $(pkg-config --cflags --libs sluice) -o cplusplus
 *   ./cplusplus 127.0.0.1:7584
 */
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <sluice/client.h>

struct failure : std::runtime_error {
	explicit failure(int rc) : std::runtime_error(sluice_last_error(nullptr)), code(rc) {}
	int code;
};

static void check(int rc)
{
	if (rc != 0)
		throw failure(rc);
}

struct destroy {
	void operator()(sluice_config *config) const { sluice_config_destroy(config); }
	void operator()(sluice_client *client) const { sluice_close(client, true, 5000); }
	void operator()(sluice_sub *sub) const { sluice_sub_close(sub, 1000); }
	void operator()(sluice_delivery *delivery) const { sluice_delivery_free(delivery); }
};
template <typename T> using owned = std::unique_ptr<T, destroy>;

static owned<sluice_client> connect(const char *address)
{
	owned<sluice_config> config(sluice_config_create());
	sluice_client *client = nullptr;

	if (!config)
		throw std::bad_alloc();
	check(sluice_config_set(config.get(), "address", address));
	check(sluice_open(config.get(), nullptr, nullptr, &client));
	return owned<sluice_client>(client);
}

static void publish(sluice_client *client, const char *subject, std::string_view body)
{
	sluice_message message = SLUICE_MESSAGE();

	message.subject = subject;
	message.body = {body.data(), body.size()};
	check(sluice_publish(client, &message, nullptr, nullptr)); /* returns when it is on disk */
}

static void print_stream(sluice_client *client, const char *stream)
{
	sluice_follow_spec spec = SLUICE_FOLLOW_SPEC();
	sluice_sub *opened = nullptr;

	spec.stream = stream;
	spec.from = SLUICE_FROM_FIRST;
	check(sluice_follow(client, &spec, nullptr, &opened));
	owned<sluice_sub> sub(opened);

	for (bool more = true; more;) {
		sluice_delivery *next = nullptr;

		check(sluice_sub_next(sub.get(), 5000, &next));
		owned<sluice_delivery> delivery(next);
		const sluice_delivery_view *view = sluice_delivery_get(next);
		std::string_view body(static_cast<const char *>(view->body.data), view->body.len);

		if (view->kind == SLUICE_DELIVERY_EVENT)
			std::printf("%s: %.*s\n", view->subject, static_cast<int>(body.size()),
				    body.data());
		more = view->kind != SLUICE_DELIVERY_CAUGHT_UP;
	}
}

int main(int argc, char **argv)
{
	try {
		const char *subjects[] = {"demo.>", nullptr};
		sluice_stream_spec stream = SLUICE_STREAM_SPEC();
		owned<sluice_client> client = connect(argc > 1 ? argv[1] : "127.0.0.1:7584");

		stream.name = "events";
		stream.subjects = subjects;
		stream.if_not_exists = true;
		check(sluice_stream_create(client.get(), &stream, nullptr, nullptr));
		publish(client.get(), "demo.cplusplus", "it works");
		print_stream(client.get(), "events");
		return 0;
	} catch (const failure &error) {
		std::fprintf(stderr, "cplusplus: %s\n", error.what());
		return sluice_error_exit_code(error.code);
	} catch (const std::exception &error) {
		std::fprintf(stderr, "cplusplus: %s\n", error.what());
		return 1;
	}
}
