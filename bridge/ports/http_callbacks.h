/* http_callbacks: the hooks of libmicrohttpd that http_request.c implements and http_server.c hands over. */
#ifndef MEOWBRIDGE_HTTP_CALLBACKS_H
#define MEOWBRIDGE_HTTP_CALLBACKS_H

#include <microhttpd.h>

/* MHD_OPTION_URI_LOG_CALLBACK. The request line is in: the only chance to see the target before it is decoded. */
void *http_on_target(void *ctx, const char *target, struct MHD_Connection *mhd);
/* The access handler: once with the headers, with each part of the body, and once when the request is whole. */
enum MHD_Result http_on_request(void *ctx, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                const char *data, size_t *size, void **context);
/* MHD_OPTION_NOTIFY_COMPLETED. */
void http_on_completed(void *ctx, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code);

#endif
