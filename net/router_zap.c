#include "net/router_zap.h"

#include "common/thread.h"
#include "crypto/wipe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_VERSION "1.0"
#define ZAP_REQUEST_ID_MAX 255

/* Frames of a request, in order. */
enum { VERSION, REQUEST_ID, DOMAIN_, ADDRESS, ROUTING_ID, MECHANISM, CREDENTIALS, N_FRAMES };

struct dure_zap {
    pthread_t thread;
    void *socket;
    dure_admit *admit;
    void *admit_state;
};

typedef struct zap_request {
    char request_id[ZAP_REQUEST_ID_MAX];
    size_t request_id_n;
    uint8_t key[DURE_CURVE_BYTES];
    bool wrong; /* not a CURVE request of our domain */
} zap_request;

static bool frame_is(zmq_msg_t *frame, const char *text)
{
    size_t n = strlen(text);
    return zmq_msg_size(frame) == n && dure_ct_equal(zmq_msg_data(frame), text, n);
}

static void take_frame(zap_request *request, int i, zmq_msg_t *frame)
{
    const size_t n = zmq_msg_size(frame);
    if (i == REQUEST_ID && n <= sizeof request->request_id) {
        memcpy(request->request_id, zmq_msg_data(frame), n);
        request->request_id_n = n;
    } else if (i == CREDENTIALS && n == DURE_CURVE_BYTES) {
        memcpy(request->key, zmq_msg_data(frame), n);
    } else if ((i == VERSION && frame_is(frame, ZAP_VERSION)) ||
               (i == DOMAIN_ && frame_is(frame, DURE_ZAP_DOMAIN)) ||
               (i == MECHANISM && frame_is(frame, "CURVE")) || i == ADDRESS || i == ROUTING_ID) {
        return;
    } else {
        request->wrong = true;
    }
}

/* False when the context was shut down. */
static bool recv_request(zap_request *request, void *socket)
{
    *request = (zap_request){.wrong = false};
    int more = 1, i = 0;
    for (; more; i++) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        int n;
        do
            n = zmq_msg_recv(&frame, socket, 0);
        while (n < 0 && errno == EINTR);
        if (n < 0) {
            zmq_msg_close(&frame);
            return false;
        }
        take_frame(request, i, &frame);
        more = zmq_msg_more(&frame);
        zmq_msg_close(&frame);
    }
    if (i != N_FRAMES) request->wrong = true;
    return true;
}

static void reply(void *socket, const zap_request *request, const char *user_id)
{
    const char *status = user_id ? "200" : "400";
    zmq_send(socket, ZAP_VERSION, strlen(ZAP_VERSION), ZMQ_SNDMORE);
    zmq_send(socket, request->request_id, request->request_id_n, ZMQ_SNDMORE);
    zmq_send(socket, status, strlen(status), ZMQ_SNDMORE);
    zmq_send(socket, user_id ? "" : "not admitted", user_id ? 0 : 12, ZMQ_SNDMORE);
    zmq_send(socket, user_id ? user_id : "", user_id ? strlen(user_id) : 0, ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0); /* no metadata */
}

static void *run(void *arg)
{
    dure_zap *zap = arg;
    zap_request request;
    while (recv_request(&request, zap->socket)) {
        char user_id[DURE_ZAP_USER_SIZE];
        dure_hex_encode(user_id, request.key, DURE_CURVE_BYTES);
        bool admitted =
            !request.wrong && zap->admit(zap->admit_state, request.key) != DURE_ADMIT_NO;
        reply(zap->socket, &request, admitted ? user_id : NULL);
    }
    zmq_close(zap->socket);
    return NULL;
}

dure_err dure_zap_start(dure_zap **out, void *context, dure_admit *admit, void *admit_state)
{
    *out = NULL;
    dure_zap *zap = calloc(1, sizeof *zap);
    if (!zap) return DURE_ERR_NOMEM;
    zap->admit = admit;
    zap->admit_state = admit_state;
    zap->socket = zmq_socket(context, ZMQ_REP);
    /* A REP socket moves to the new thread as a whole, which starting one makes safe. */
    int linger_ms = 0;
    if (zap->socket && zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) == 0 &&
        zmq_bind(zap->socket, ZAP_ENDPOINT) == 0 &&
        dure_thread_start(&zap->thread, run, zap) == DURE_OK) {
        *out = zap;
        return DURE_OK;
    }
    if (zap->socket) zmq_close(zap->socket);
    free(zap);
    return DURE_ERR_NET;
}

void dure_zap_stop(dure_zap **zap)
{
    if (!*zap) return;
    pthread_join((*zap)->thread, NULL);
    free(*zap);
    *zap = NULL;
}
