/* The HTTP server's TLS, with a certificate made here and OpenSSL as the client. */
#include "net/http.h"
#include "support/check.h"
#include "support/http_client.h"
#include "support/tcp_proxy.h"
#include "support/temp_dir.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void handle(void *state, dure_http_exchange *x)
{
    (void)state;
    dure_http_reply(x, 200, "text/plain", dure_span_of_text("over TLS"));
}

/* A self-signed certificate for localhost and its key, as two PEM files. */
static void make_certificate(const char *cert_path, const char *key_path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1,
                               0);
    X509_set_issuer_name(cert, name);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *f = fopen(cert_path, "w");
    assert_true(f && PEM_write_X509(f, cert));
    fclose(f);
    f = fopen(key_path, "w");
    assert_true(f && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
    fclose(f);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static dure_http *open_server(const temp_dir *dir)
{
    char cert[512], key[512];
    dure_http *http;
    snprintf(cert, sizeof cert, "%s", temp_dir_file(dir, "cert.pem"));
    snprintf(key, sizeof key, "%s", temp_dir_file(dir, "key.pem"));
    make_certificate(cert, key);
    const dure_http_opts opts = {
        .listen = "127.0.0.1:0", .handler = handle, .tls_cert_path = cert, .tls_key_path = key};
    assert_ok(dure_http_open(&http, &opts, NULL));
    assert_int_equal(strncmp(dure_http_url(http), "https://127.0.0.1:", 18), 0);
    return http;
}

/* Asks with at most TLS `version`; false when the handshake fails. */
static bool ask(uint16_t port, int version, char *answer, size_t size)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_security_level(context, 0); /* so that the old versions are refused by the server */
    SSL *ssl = SSL_new(context);
    int fd = tcp_connect(port), n = 0, got = 0;
    SSL_set_fd(ssl, fd);
    bool connected = SSL_connect(ssl) == 1;
    if (connected) SSL_write(ssl, request, sizeof request - 1);
    while (connected && (got = SSL_read(ssl, answer + n, (int)size - 1 - n)) > 0)
        n += got;
    answer[n] = 0;
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    return connected;
}

static void test_https_answers(void **state)
{
    (void)state;
    temp_dir dir;
    char answer[4096];
    temp_dir_make(&dir);
    dure_http *http = open_server(&dir);
    uint16_t port = http_port_of(dure_http_url(http));
    assert_true(ask(port, TLS1_3_VERSION, answer, sizeof answer));
    assert_non_null(strstr(answer, "over TLS"));
    assert_true(ask(port, TLS1_2_VERSION, answer, sizeof answer));
    assert_non_null(strstr(answer, "over TLS"));
    dure_http_close(&http);
    temp_dir_remove(&dir);
}

static void test_https_refuses_old_versions_and_plain_text(void **state)
{
    (void)state;
    temp_dir dir;
    char answer[4096];
    temp_dir_make(&dir);
    dure_http *http = open_server(&dir);
    uint16_t port = http_port_of(dure_http_url(http));
    assert_false(ask(port, TLS1_1_VERSION, answer, sizeof answer));
    http_answer_text plain = http_request(port, "GET", "/", NULL, NULL);
    assert_int_equal(plain.status, 0);
    http_answer_free(&plain);
    dure_http_close(&http);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_https_answers),
        cmocka_unit_test(test_https_refuses_old_versions_and_plain_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
