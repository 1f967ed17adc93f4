#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/http_client.h"
#include "meowbridge/signature.h"

#include <stdio.h>
#include <string.h>

/* The request that MeowFlow would make of this URL, body and time: meowflow.md, "The signature". */
static struct signed_request make_request(const struct http_url *url, struct slice body, const char *timestamp)
{
    return (struct signed_request){
        .method = SLICE("POST"),
        .domain = signature_domain(slice_of(url->authority)),
        .path = {url->target, strcspn(url->target, "?")},
        .body = body,
        .timestamp = slice_of(timestamp),
    };
}

static int print_headers(struct slice secret, const struct signed_request *request)
{
    struct signer *signer;
    struct error why;
    uint8_t mac[SIGNATURE_BYTES];
    char hex[SIGNATURE_HEX_DIGITS];
    if (signer_open(&signer, secret, &why)) {
        command_complain("%s", why.text);
        return EXIT_FAILED;
    }
    bool done = signer_sign(signer, request, mac);
    signer_close(&signer);
    if (!done) {
        command_complain("the signature cannot be computed");
        return EXIT_FAILED;
    }
    hex_encode(mac, sizeof mac, hex);
    printf("%s: %.*s\n", SIGNATURE_TIMESTAMP_HEADER, SLICE_ARGS(request->timestamp));
    printf("%s: %.*s\n", SIGNATURE_HEADER, (int)sizeof hex, hex);
    return EXIT_DONE;
}

static int sign_body(const struct http_url *url, const char *timestamp, const char *secret_file, const char *body_file)
{
    struct secret secret;
    struct buf body;
    if (!command_secret(secret_file, &secret)) {
        return EXIT_USAGE;
    }
    int status = EXIT_FAILED;
    if (command_read_file(body_file, &body)) {
        struct signed_request request = make_request(url, buf_slice(&body), timestamp);
        status = print_headers((struct slice){secret.data, secret.size}, &request);
    }
    buf_free(&body);
    secret_free(&secret);
    return status;
}

int command_sign(int argc, char **argv)
{
    const char *url_text = NULL, *secret_file = NULL, *timestamp = NULL;
    const struct command_option options[] = {
        {'u', "url", "URL", "the URL that the webhook is registered with (its query is not signed)", &url_text},
        {'s', "secret-file", "FILE", "the App Secret; without it, MEOWBRIDGE_SECRET", &secret_file},
        {'t', "timestamp", "MS", "Unix time in milliseconds, 13 digits (default: now)", &timestamp},
        {0},
    };
    const struct command_usage usage = {
        .name = "sign",
        .arguments = "--url URL [BODY-FILE]",
        .summary = "Prints the two headers that sign a body as MeowFlow does. The body is BODY-FILE, or\n"
                   "standard input, taken as it is: a newline at its end is part of what is signed.",
        .details = "Example:\n"
                   "  meowbridge sign -u http://127.0.0.1:8080/webhook event.json > headers\n"
                   "  curl -H @headers --data-binary @event.json http://127.0.0.1:8080/webhook\n",
        .options = options,
        .max_operands = 1,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    if (status >= 0) {
        return status;
    }
    struct http_url url;
    struct error why;
    int64_t ms;
    if (!url_text || http_url_parse(slice_of(url_text), &url, &why)) {
        command_complain("--url%s%s", url_text ? ": " : " URL is missing", url_text ? why.text : "");
        return EXIT_USAGE;
    }
    if (timestamp && !signature_parse_timestamp(slice_of(timestamp), &ms)) {
        command_complain("--timestamp is Unix time in milliseconds, 13 digits, not \"%s\"", timestamp);
        return EXIT_USAGE;
    }
    char now[24];
    snprintf(now, sizeof now, "%013lld", (long long)clock_wall_ms());
    return sign_body(&url, timestamp ? timestamp : now, secret_file, operand_count > 0 ? operands[0] : NULL);
}
