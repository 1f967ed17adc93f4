#include "trials.h"

#include "meowbridge/http_server.h"
#include "meowbridge/mqtt_client.h"

static enum err try_mqtt(const char *ca_file, const char *certificate_file, const char *key_file, struct error *why)
{
    const struct mqtt_tls_options options = {ca_file, certificate_file, key_file};
    struct mqtt_tls *tls = NULL;
    enum err err = mqtt_tls_open(&tls, &options, why);
    mqtt_tls_close(&tls);
    return err;
}

const struct config_trials config_trials = {.http = http_server_try_tls, .mqtt = try_mqtt};
