#include "support/http_client.h"

#include "support/tcp_proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

uint16_t http_port_of(const char *url)
{
    return (uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10);
}

int http_send(uint16_t port, const char *bytes, size_t n)
{
    int fd = tcp_connect(port);
    while (n) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0) break; /* the server may refuse before it has read everything */
        bytes += sent;
        n -= (size_t)sent;
    }
    return fd;
}

/* Removes chunked encoding in place; what follows a broken chunk is dropped. */
static size_t unchunk(char *body, size_t n)
{
    size_t at = 0, out = 0;
    while (at < n) {
        char *line_end;
        size_t size = strtoul(body + at, &line_end, 16);
        at = (size_t)(line_end - body) + 2;
        if (size == 0 || at > n || size > n - at) break;
        memmove(body + out, body + at, size);
        out += size;
        at += size + 2;
    }
    return out;
}

http_answer_text http_read(int fd)
{
    http_answer_text answer = {0};
    size_t n = 0, capacity = 1 << 16;
    char *text = malloc(capacity + 1);
    if (!text) abort();
    for (ssize_t got; (got = recv(fd, text + n, capacity - n, 0)) > 0;) {
        n += (size_t)got;
        if (n == capacity && !(text = realloc(text, (capacity *= 2) + 1))) abort();
    }
    close(fd);
    text[n] = 0;
    char *end = strstr(text, "\r\n\r\n");
    if (!end) {
        free(text);
        return answer;
    }
    *end = 0;
    answer.head = text;
    answer.body = end + 4;
    answer.body_n = n - (size_t)(answer.body - text);
    if (strcasestr(text, "transfer-encoding: chunked"))
        answer.body_n = unchunk(answer.body, answer.body_n);
    answer.body[answer.body_n] = 0;
    sscanf(text, "HTTP/1.%*d %d", &answer.status);
    return answer;
}

http_answer_text http_raw(uint16_t port, const char *bytes, size_t n)
{
    return http_read(http_send(port, bytes, n));
}

http_answer_text http_request(uint16_t port, const char *method, const char *path,
                              const char *headers, const char *body)
{
    char *request;
    int n =
        asprintf(&request,
                 "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s"
                 "Content-Length: %zu\r\n\r\n%s",
                 method, path, headers ? headers : "", body ? strlen(body) : 0, body ? body : "");
    if (n < 0) abort();
    http_answer_text answer = http_raw(port, request, (size_t)n);
    free(request);
    return answer;
}

void http_answer_free(http_answer_text *answer)
{
    free(answer->head);
    *answer = (http_answer_text){0};
}
