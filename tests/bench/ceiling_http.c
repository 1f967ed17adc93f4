/* bench_ceiling_http: the ceiling of receiving. libmicrohttpd, driven from outside as the bridge drives it, which reads a
 * request's body and answers 200 at once: no signature, no disk, no broker.
 *
 *   bench_ceiling_http -p PORT    ends on SIGTERM */
#include "tool.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct MHD_Response *response;

static enum MHD_Result answer(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
    (void)ctx, (void)url, (void)method, (void)version, (void)data;
    static int known;
    if (!*state) {
        *state = &known;
        return MHD_YES;
    }
    if (*size > 0) {
        *size = 0;
        return MHD_YES;
    }
    return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

int main(int argc, char **argv)
{
    static char body[] = "{\"code\":0,\"message\":\"OK\",\"data\":{\"id\":\"152066840347062275\",\"duplicate\":false}}";
    tool_name = "bench_ceiling_http";
    if (argc != 3 || strcmp(argv[1], "-p") != 0) {
        fprintf(stderr, "usage: bench_ceiling_http -p PORT\n");
        return 2;
    }
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)tool_number(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    response = MHD_create_response_from_buffer(sizeof body - 1, body, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(response, "Content-Type", "application/json");
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, &address,
                         MHD_OPTION_CONNECTION_LIMIT, 4096U, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_END);
    if (!daemon) {
        tool_die("libmicrohttpd does not start on port %s", argv[2]);
    }
    struct pollfd poller = {.fd = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN};
    for (;;) {
        MHD_UNSIGNED_LONG_LONG timeout;
        poll(&poller, 1, MHD_get_timeout(daemon, &timeout) == MHD_YES ? (int)timeout : -1);
        MHD_run(daemon);
    }
}
