#include "fixture.h"

#include "support/check.h"

#include <stdio.h>
#include <string.h>

static void key_of(dure_sign_key *key, const char *what)
{
    dure_hash seed;
    assert_ok(dure_hash_bytes(&seed, dure_span_of_text(what)));
    assert_ok(dure_sign_from_secret(key, seed.b));
}

static void key_of_site(dure_sign_key *key, const char *what, const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "%s of %s", what, name);
    key_of(key, text);
}

void fixture_make(fixture *f)
{
    *f = (fixture){
        .terms = {
            .federation = "village",
            .base = {.architecture = "llama",
                     .n_layers = 2,
                     .n_embd = 32,
                     .n_ff = 64,
                     .n_head = 4,
                     .n_head_kv = 2,
                     .head_dim = 8,
                     .n_vocab = 128,
                     .n_context = 64},
            .layout =
                {.rank = 4, .alpha = 8, .targets = 5, .seed = 7, .n_active = 384, .n_params = 896},
            .training = {.rounds = 2,
                         .steps = 3,
                         .learning_rate = 1e-3,
                         .clip = 1,
                         .grid_bits = 14,
                         .batch = 16,
                         .max_length = 64,
                         .privacy_mode = DURE_PRIVACY_RECORD,
                         .optimizer = DURE_LOCAL_ADAMW,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .optimizer_epsilon = 1e-8,
                         .server_rate = 1},
            .cohort = {.min_sites = 3, .collusion = 1, .u_min = 3, .share_lifetime_s = 3600},
            .grid = {.range = 0.0625, .limit = 65536, .modulus_bits = 24}}};
    memset(f->terms.base.digest.b, 0xba, sizeof f->terms.base.digest.b);
    memset(f->coordinator_curve, 0xcc, sizeof f->coordinator_curve);
    key_of(&f->root, "the root");
    key_of(&f->coordinator_sign, "the coordinator");
}

void fixture_share_noise(fixture *f)
{
    f->terms.training.privacy_mode = DURE_PRIVACY_CLIENT;
    f->terms.training.sigma_num = 131072;
    f->terms.training.delta = 1e-5;
    f->terms.grid = (dure_grid){.range = 1024, .limit = 1u << 24, .modulus_bits = 32};
}

void fixture_invite(dure_invitation *out, dure_sign_key *invite, const fixture *f, const char *name)
{
    key_of_site(invite, "the invitation", name);
    *out = (dure_invitation){.endpoint = "tcp://127.0.0.1:7070",
                             .issued_s = FIXTURE_ISSUED,
                             .expires_s = FIXTURE_EXPIRES,
                             .terms = f->terms};
    snprintf(out->name, sizeof out->name, "%s", name);
    snprintf(out->organisation, sizeof out->organisation, "org-%s", name);
    memcpy(out->coordinator_curve, f->coordinator_curve, sizeof out->coordinator_curve);
    memcpy(out->coordinator_sign, f->coordinator_sign.public_, sizeof out->coordinator_sign);
    dure_diag diag = {0};
    if (dure_invitation_sign(out, invite, &f->root, &diag)) fail_msg("%s", diag.text);
}

void fixture_site_make(fixture_site *site, const fixture *f, const char *name)
{
    *site = (fixture_site){0};
    fixture_invite(&site->join.invitation, &site->invite, f, name);
    key_of_site(&site->own, "the site key", name);
    /* Any 32 bytes will do as a CURVE key here. */
    dure_sign_key curve;
    key_of_site(&curve, "the transport key", name);
    memcpy(site->join.curve_public, curve.public_, sizeof site->join.curve_public);
    site->join.declared = (dure_declared){.n_pub = 1000,
                                          .q_k = UINT64_C(295147905179352825),
                                          .batch = 16,
                                          .sigma_num = 70000,
                                          .sigma_den = 65536};
    if (f->terms.training.sigma_num) site->join.declared.sigma_num = f->terms.training.sigma_num;
    site->join.base_digest = f->terms.base.digest;
    dure_diag diag = {0};
    if (dure_join_sign(&site->join, &site->invite, &site->own, &diag)) fail_msg("%s", diag.text);
}
