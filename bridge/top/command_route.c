#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/event.h"
#include "meowbridge/route.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>

static void print_properties(const struct message *message)
{
    for (size_t i = 0; i < message->property_count; i++) {
        printf("  %-12.*s %.*s\n", SLICE_ARGS(message->properties[i].name), SLICE_ARGS(message->properties[i].value));
    }
}

static void print_message(const struct message *message, int64_t mqtt_version)
{
    printf("\n%.*s\n  QoS %d, %s, %zu bytes of %.*s", SLICE_ARGS(message->topic), message->qos,
           message->retain ? "retained" : "not retained", message->payload.size, SLICE_ARGS(message->content_type));
    if (message->expiry_s > 0) {
        printf(", expires after %lu s", (unsigned long)message->expiry_s);
    }
    puts(message->unheard == ROUTE_DEAD ? ", dead if nobody subscribes" : "");
    if (mqtt_version == 5) {
        print_properties(message);
    }
}

static int print_messages(const struct event *event, const struct message_list *list, int64_t mqtt_version)
{
    struct buf line;
    buf_init(&line, SIZE_MAX / 2);
    terminal_append(&line, event->name, SIZE_MAX);
    buf_append_text(&line, ", id ");
    terminal_append(&line, event->id, SIZE_MAX);
    buf_append_text(&line, ", appId ");
    terminal_append(&line, event->app_id, SIZE_MAX);
    printf("%.*s: %zu message%s over MQTT %s\n", SLICE_ARGS(buf_slice(&line)), list->count, list->count == 1 ? "" : "s",
           mqtt_version == 5 ? "5" : "3.1.1, which knows no properties");
    buf_free(&line);
    for (size_t i = 0; i < list->count; i++) {
        print_message(&list->items[i], mqtt_version);
    }
    return EXIT_DONE;
}

static int render(const struct config *config, struct route_table *table, struct slice body, struct message_list *list)
{
    struct event event;
    struct error why;
    struct buf scratch;
    buf_init(&scratch, body.size);
    int status = EXIT_FAILED;
    if (event_parse(&event, body, &scratch, &why)) {
        command_complain("the bridge refuses this body with 400: %s", why.text);
    } else {
        event.accepted_ms = clock_wall_ms();
        enum route_verdict verdict = route_render(table, &event, event.accepted_ms, list);
        if (verdict == ROUTE_OK) {
            status = print_messages(&event, list, config->mqtt.version);
        } else {
            command_complain("%.*s becomes no message: %s; %s", SLICE_ARGS(event.name), route_verdict_text(verdict),
                             config->journal.enabled ? "it is kept as dead" : "it is refused with 503");
        }
    }
    buf_free(&scratch);
    return status;
}

static int route(const struct config *config, const char *body_file)
{
    struct buf body;
    struct error why;
    struct route_table *table = NULL;
    struct message_list *list = malloc(sizeof *list);
    int status = EXIT_FAILED;
    if (!list || route_table_open(&table, config->routes, config->route_count, &why)) {
        command_complain("%s", list ? why.text : "out of memory");
        free(list);
        return status;
    }
    message_list_init(list);
    if (command_read_file(body_file, &body)) {
        status = render(config, table, buf_slice(&body), list);
    }
    buf_free(&body);
    message_list_free(list);
    free(list);
    route_table_unref(&table);
    return status;
}

int command_route(int argc, char **argv)
{
    const char *path = NULL;
    const struct command_option options[] = {
        {'c', "config", "FILE", "the configuration; without it, defaults and MEOWBRIDGE_… variables", &path},
        {0},
    };
    const struct command_usage usage = {
        .name = "route",
        .arguments = "[BODY-FILE]",
        .summary = "Shows what a webhook's body would become: each topic with its QoS, retain flag, properties\n"
                   "and size of the payload. The body is BODY-FILE, or standard input. Nothing is sent.",
        .details = "Exit status: 0 it would be published, 1 it would not (no route, not a body of MeowFlow's).\n"
                   "\n"
                   "Example:\n"
                   "  meowbridge route -c meowbridge.json event.json\n",
        .options = options,
        .max_operands = 1,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    if (status >= 0) {
        return status;
    }
    struct config *config;
    if (!command_config(path, &config)) {
        return EXIT_USAGE;
    }
    status = route(config, operand_count > 0 ? operands[0] : NULL);
    config_free(&config);
    return status;
}
