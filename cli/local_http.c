#include "cli/local_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_LIMIT = 16 << 20, PATIENCE_S = 120 };

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

uint16_t dure_local_free_port(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint16_t port = 0;
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, n) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &n) == 0)
        port = ntohs(address.sin_port);
    if (fd >= 0) close(fd);
    return port;
}

static dure_err exchange(dure_buf *raw, int fd, dure_span request)
{
    while (request.n) {
        ssize_t n = send(fd, request.data, request.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return DURE_ERR_NET;
        request = dure_span_of(request.data + n, request.n - (size_t)n);
    }
    for (;;) {
        uint8_t block[8192];
        ssize_t n = recv(fd, block, sizeof block, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return DURE_ERR_NET;
        if (n == 0) return dure_buf_err(raw);
        dure_put_raw(raw, block, (size_t)n);
    }
}

/* Splits status and body; "Connection: close" was asked for, so the body runs to the end. */
static dure_err take_answer(int *status, dure_buf *answer, dure_buf *raw)
{
    dure_put_u8(raw, 0);
    if (dure_buf_err(raw)) return dure_buf_err(raw);
    const char *text = (const char *)raw->data;
    const char *body = strstr(text, "\r\n\r\n");
    if (strncmp(text, "HTTP/1.1 ", 9) != 0 || !body) return DURE_ERR_NET;
    *status = (int)strtol(text + 9, NULL, 10);
    body += 4;
    dure_put_raw(answer, body, raw->n - 1 - (size_t)(body - text));
    return dure_buf_err(answer);
}

dure_err dure_local_http(int *status, dure_buf *answer, uint16_t port, const char *method,
                         const char *path, const char *body, dure_diag *diag)
{
    dure_buf request, raw;
    dure_buf_init(&request, ANSWER_LIMIT);
    dure_buf_init(&raw, ANSWER_LIMIT);
    dure_buf_init(answer, ANSWER_LIMIT);
    dure_put_format(&request,
                    "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                    method, path, body ? strlen(body) : 0, body ? body : "");
    struct sockaddr_in address = loopback(port);
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    dure_err err = fd >= 0 ? dure_buf_err(&request) : DURE_ERR_NET;
    if (!err && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience))
        err = DURE_ERR_NET;
    if (!err && connect(fd, (const struct sockaddr *)&address, sizeof address)) err = DURE_ERR_NET;
    if (!err) err = exchange(&raw, fd, dure_buf_span(&request));
    if (!err) err = take_answer(status, answer, &raw);
    if (fd >= 0) close(fd);
    dure_buf_fini(&request);
    dure_buf_fini(&raw);
    if (!err) return DURE_OK;
    dure_buf_fini(answer);
    return dure_diag_set(diag, err, "no answer from 127.0.0.1:%u%s", (unsigned)port, path);
}
