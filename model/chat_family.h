/* How the known families of models write a conversation; for chat_template.c and chat_render.c. */
#pragma once

#include <stdbool.h>

/* One message: begin, role, header_end, after_role, content, end, after_end. The three in angle
 * brackets are special tokens; header_end is missing from most. */
typedef struct dure_chat_frame {
    const char *begin, *header_end, *after_role, *end, *after_end;
    const char *assistant; /* the name of that role */
    bool bos;              /* the conversation begins with the vocabulary's token for that */
    bool trims;            /* white space at both ends of a content is dropped */
} dure_chat_frame;

typedef struct dure_chat_family {
    const char *name;
    const dure_chat_frame *frame;
    const char *default_system; /* put first where no system message is; NULL: none is */
    const char *system_header;  /* a system message always comes first and begins with this */
    bool thinks;                /* the last answer carries its reasoning between <think> tags */
    bool alternates;            /* user and assistant take turns, the user first */
    bool folds_system;          /* a first system message becomes the head of the user's first */
} dure_chat_family;
