#include "common/file.h"
#include "crypto/sign.h"
#include "support/hex.h"
#include "support/temp_dir.h"

#include <sys/stat.h>

/* RFC 8032 section 7.1: tests 2, 3 and 1024. */
static void test_sign_matches_rfc_8032(void **state)
{
    (void)state;
    static const struct {
        const char *secret, *public_, *message, *signature;
    } cases[] = {
        {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
         "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
         "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
        {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
         "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
         "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
         "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
        {"f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
         "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
         "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f5"
         "4e9f77b1e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37"
         "c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89ffbc1a858efc"
         "b8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a821a579116ec6dad2b"
         "3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573c"
         "b116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204"
         "ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd84359d44254d95629e9855a94a7c1958"
         "d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a1f40cc24"
         "554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f27088d78b7e883c8759d2c4f5c6"
         "5adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2"
         "cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128bab27af87a"
         "71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae0784504df543af8969b"
         "e3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9"
         "b47acdb751fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb"
         "038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f672451"
         "7b65e614ad6808d6f6ee34dff7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08"
         "d78ff4ef5d63653a65040cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e"
         "2ab47b57f7f7276cd419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d"
         "5011fd2dcc5600a32ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0"
         "f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041"
         "e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa9"
         "33a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380db2eaaa707b4c4185"
         "c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8cac60c905c"
         "15fc910840b94c00a0b9d0",
         "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350"
         "aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t secret[32], message[1023], signature[64];
        dure_sign_key key;
        hex_bytes(secret, 32, cases[i].secret);
        dure_span text =
            dure_span_of(message, hex_bytes(message, sizeof message, cases[i].message));
        assert_ok(dure_sign_from_secret(&key, secret));
        assert_hex(key.public_, 32, cases[i].public_);
        assert_ok(dure_sign_text(signature, &key, text));
        assert_hex(signature, 64, cases[i].signature);
        assert_ok(dure_sign_text_verify(key.public_, text, signature));
    }
}

static void test_sign_verifies_its_own_signature(void **state)
{
    (void)state;
    dure_sign_key key;
    uint8_t signature[64];
    assert_ok(dure_sign_generate(&key));
    assert_ok(dure_sign(signature, &key, "label", dure_span_of_text("message")));
    assert_ok(dure_sign_verify(key.public_, "label", dure_span_of_text("message"), signature));
    assert_ok(dure_sign(signature, &key, "label", dure_span_of("", 0)));
    assert_ok(dure_sign_verify(key.public_, "label", dure_span_of("", 0), signature));
}

/* The label is part of what is signed, with its length, so moving bytes between label and message
 * does not verify either. */
static void test_sign_refuses_another_label_message_or_key(void **state)
{
    (void)state;
    dure_sign_key key, other;
    uint8_t signature[64];
    dure_span message = dure_span_of_text("message");
    assert_ok(dure_sign_generate(&key));
    assert_ok(dure_sign_generate(&other));
    assert_ok(dure_sign(signature, &key, "label", message));
    assert_err(dure_sign_verify(key.public_, "labem", message, signature), DURE_ERR_AUTH);
    assert_err(dure_sign_verify(key.public_, "labelm", dure_span_of_text("essage"), signature),
               DURE_ERR_AUTH);
    assert_err(dure_sign_verify(key.public_, "label", dure_span_of_text("massage"), signature),
               DURE_ERR_AUTH);
    assert_err(dure_sign_verify(other.public_, "label", message, signature), DURE_ERR_AUTH);
    assert_err(dure_sign_text_verify(key.public_, message, signature), DURE_ERR_AUTH);
}

static void test_sign_refuses_every_flipped_bit(void **state)
{
    (void)state;
    dure_sign_key key;
    uint8_t signature[64];
    assert_ok(dure_sign_generate(&key));
    assert_ok(dure_sign(signature, &key, "label", dure_span_of_text("message")));
    for (size_t bit = 0; bit < 512; bit++) {
        signature[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_err(dure_sign_verify(key.public_, "label", dure_span_of_text("message"), signature),
                   DURE_ERR_AUTH);
        signature[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* What begins with a zero byte could be a labelled message. */
static void test_sign_text_refuses_what_could_be_a_labelled_message(void **state)
{
    (void)state;
    dure_sign_key key;
    uint8_t signature[64];
    static const uint8_t framed[] = {0, 0, 0, 5, 'l', 'a', 'b', 'e', 'l', 'm'};
    assert_ok(dure_sign_generate(&key));
    assert_err(dure_sign_text(signature, &key, dure_span_of(framed, sizeof framed)),
               DURE_ERR_USAGE);
    assert_err(dure_sign_text(signature, &key, dure_span_of("", 0)), DURE_ERR_USAGE);
    assert_ok(dure_sign(signature, &key, "label", dure_span_of_text("m")));
    assert_err(dure_sign_text_verify(key.public_, dure_span_of(framed, sizeof framed), signature),
               DURE_ERR_AUTH);
}

static void test_sign_key_file_round_trips_with_mode_0600(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    dure_sign_key key, loaded;
    struct stat info;
    const char *path = temp_dir_file(&dir, "site.key");
    assert_ok(dure_sign_generate(&key));
    assert_ok(dure_sign_save(&key, path, NULL));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_ok(dure_sign_load(&loaded, path, NULL));
    assert_memory_equal(&loaded, &key, sizeof key);
    assert_err(dure_sign_save(&key, path, NULL), DURE_ERR_EXISTS);
    temp_dir_remove(&dir);
}

static void test_sign_load_refuses_a_key_that_others_may_read(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    dure_sign_key key;
    dure_diag diag = {{0}};
    const char *path = temp_dir_file(&dir, "site.key");
    assert_ok(dure_sign_generate(&key));
    assert_ok(dure_sign_save(&key, path, NULL));
    assert_int_equal(chmod(path, 0640), 0);
    assert_err(dure_sign_load(&key, path, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "chmod 600"));
    temp_dir_remove(&dir);
}

static void test_sign_load_refuses_what_is_no_key(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "hello\n",
        "dure-ed25519-private-key-1 "
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f6\n",
        "dure-ed25519-private-key-1 "
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7fzz\n",
        "dure-ed25519-private-key-2 "
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n",
        "dure-ed25519-private-key-1 "
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\nmore",
    };
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "site.key");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        dure_sign_key key;
        dure_diag diag = {{0}};
        assert_ok(dure_file_write_atomic(path, dure_span_of_text(texts[i]), 0600, NULL));
        assert_err(dure_sign_load(&key, path, &diag), DURE_ERR_FORMAT);
        assert_non_null(strstr(diag.text, "site.key"));
    }
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sign_matches_rfc_8032),
        cmocka_unit_test(test_sign_verifies_its_own_signature),
        cmocka_unit_test(test_sign_refuses_another_label_message_or_key),
        cmocka_unit_test(test_sign_refuses_every_flipped_bit),
        cmocka_unit_test(test_sign_text_refuses_what_could_be_a_labelled_message),
        cmocka_unit_test(test_sign_key_file_round_trips_with_mode_0600),
        cmocka_unit_test(test_sign_load_refuses_a_key_that_others_may_read),
        cmocka_unit_test(test_sign_load_refuses_what_is_no_key),
    };
    return cmocka_run_group_tests_name("crypto.sign", tests, NULL, NULL);
}
