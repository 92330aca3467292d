/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The wire format is that of protobuf's "Encoding" page: a message is a string of
 * fields, each a tag varint (number << 3 | wire type) and a payload.  The tables
 * below are the part of the ONNX schema that matters for walking: which fields are
 * messages, and which wire type each known field has.
 */
#include "frontend/pbscan.h"

/* ---- the schema ------------------------------------------------------------------- */

enum msg {
    MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SEGMENT, SPARSE, VALUE_INFO, TYPE, TYPE_TENSOR,
    TYPE_SEQUENCE, TYPE_MAP, SHAPE, DIMENSION, ENTRY, OPSET, TRAINING, FUNCTION, ANNOTATION,
    MSG_COUNT
};

enum kind {
    VARINT,  /* int, bool, enum */
    FIXED32, /* float */
    FIXED64, /* double */
    BYTES,   /* string, bytes */
    MESSAGE,
    VARINTS, /* repeated: one by one, or packed */
    FIXED32S,
    FIXED64S
};

struct field {
    uint8_t number, kind, child;
};
struct schema {
    const char *name;
    struct field field[24]; /* ends at number 0 */
};

static const struct schema schemas[MSG_COUNT] = {
    [MODEL] = {"ModelProto",
               {{1, VARINT, 0}, {2, BYTES, 0}, {3, BYTES, 0}, {4, BYTES, 0}, {5, VARINT, 0},
                {6, BYTES, 0}, {7, MESSAGE, GRAPH}, {8, MESSAGE, OPSET}, {14, MESSAGE, ENTRY},
                {20, MESSAGE, TRAINING}, {25, MESSAGE, FUNCTION}}},
    [GRAPH] = {"GraphProto",
               {{1, MESSAGE, NODE}, {2, BYTES, 0}, {5, MESSAGE, TENSOR}, {10, BYTES, 0},
                {11, MESSAGE, VALUE_INFO}, {12, MESSAGE, VALUE_INFO}, {13, MESSAGE, VALUE_INFO},
                {14, MESSAGE, ANNOTATION}, {15, MESSAGE, SPARSE}}},
    [NODE] = {"NodeProto",
              {{1, BYTES, 0}, {2, BYTES, 0}, {3, BYTES, 0}, {4, BYTES, 0},
               {5, MESSAGE, ATTRIBUTE}, {6, BYTES, 0}, {7, BYTES, 0}}},
    [ATTRIBUTE] = {"AttributeProto",
                   {{1, BYTES, 0}, {2, FIXED32, 0}, {3, VARINT, 0}, {4, BYTES, 0},
                    {5, MESSAGE, TENSOR}, {6, MESSAGE, GRAPH}, {7, FIXED32S, 0}, {8, VARINTS, 0},
                    {9, BYTES, 0}, {10, MESSAGE, TENSOR}, {11, MESSAGE, GRAPH}, {13, BYTES, 0},
                    {14, MESSAGE, TYPE}, {15, MESSAGE, TYPE}, {20, VARINT, 0}, {21, BYTES, 0},
                    {22, MESSAGE, SPARSE}, {23, MESSAGE, SPARSE}}},
    [TENSOR] = {"TensorProto",
                {{1, VARINTS, 0}, {2, VARINT, 0}, {3, MESSAGE, SEGMENT}, {4, FIXED32S, 0},
                 {5, VARINTS, 0}, {6, BYTES, 0}, {7, VARINTS, 0}, {8, BYTES, 0}, {9, BYTES, 0},
                 {10, FIXED64S, 0}, {11, VARINTS, 0}, {12, BYTES, 0}, {13, MESSAGE, ENTRY},
                 {14, VARINT, 0}}},
    [SEGMENT] = {"TensorProto.Segment", {{1, VARINT, 0}, {2, VARINT, 0}}},
    [SPARSE] = {"SparseTensorProto", {{1, MESSAGE, TENSOR}, {2, MESSAGE, TENSOR}, {3, VARINTS, 0}}},
    [VALUE_INFO] = {"ValueInfoProto", {{1, BYTES, 0}, {2, MESSAGE, TYPE}, {3, BYTES, 0}}},
    [TYPE] = {"TypeProto",
              {{1, MESSAGE, TYPE_TENSOR}, {4, MESSAGE, TYPE_SEQUENCE}, {5, MESSAGE, TYPE_MAP},
               {6, BYTES, 0}, {8, MESSAGE, TYPE_TENSOR}, {9, MESSAGE, TYPE_SEQUENCE}}},
    [TYPE_TENSOR] = {"TypeProto.Tensor", {{1, VARINT, 0}, {2, MESSAGE, SHAPE}}},
    [TYPE_SEQUENCE] = {"TypeProto.Sequence", {{1, MESSAGE, TYPE}}},
    [TYPE_MAP] = {"TypeProto.Map", {{1, VARINT, 0}, {2, MESSAGE, TYPE}}},
    [SHAPE] = {"TensorShapeProto", {{1, MESSAGE, DIMENSION}}},
    [DIMENSION] = {"TensorShapeProto.Dimension", {{1, VARINT, 0}, {2, BYTES, 0}, {3, BYTES, 0}}},
    [ENTRY] = {"StringStringEntryProto", {{1, BYTES, 0}, {2, BYTES, 0}}},
    [OPSET] = {"OperatorSetIdProto", {{1, BYTES, 0}, {2, VARINT, 0}}},
    [TRAINING] = {"TrainingInfoProto",
                  {{1, MESSAGE, GRAPH}, {2, MESSAGE, GRAPH}, {3, MESSAGE, ENTRY},
                   {4, MESSAGE, ENTRY}}},
    [FUNCTION] = {"FunctionProto",
                  {{1, BYTES, 0}, {4, BYTES, 0}, {5, BYTES, 0}, {6, BYTES, 0}, {7, MESSAGE, NODE},
                   {8, BYTES, 0}, {9, MESSAGE, OPSET}, {10, BYTES, 0}}},
    [ANNOTATION] = {"TensorAnnotation", {{1, BYTES, 0}, {2, MESSAGE, ENTRY}}},
};

/* ---- the walk --------------------------------------------------------------------- */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct scan {
    struct mpqc_cx *cx;
    const char *file;
    const uint8_t *data;
    struct mpqc_arena *arena;
    struct mpqc_pb_index *index;   /* of a model, else NULL */
    struct mpqc_pb_tensor *tensor; /* of a lone tensor, else NULL */
    uint32_t raws;
    uint64_t fields;
};

/* A field that has been read: data[tag, payload) is tag and length, data[payload,
 * end) what it holds. */
struct item {
    uint32_t number;
    enum wire wire;
    size_t tag, payload, end;
    uint64_t value; /* of a varint */
};

#define BAD(s, at, ...)                                                                           \
    MPQC_FAIL((s)->cx, FORMAT,                                                                    \
              ((struct mpqc_where){.file = (s)->file, .offset = (int64_t)(at)}), __VA_ARGS__)

/* One varint of at most 64 bits from data[*at, end). */
static mpqc_status read_varint(struct scan *s, size_t *at, size_t end, uint64_t *out)
{
    uint64_t v = 0;
    size_t start = *at;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (*at >= end)
            return BAD(s, start, "truncated: a number runs past the end of its message");
        uint8_t byte = s->data[(*at)++];
        if (shift == 63 && byte > 1) break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = v;
            return MPQC_OK;
        }
    }
    return BAD(s, start, "malformed: a number of more than 64 bits");
}

static mpqc_status read_item(struct scan *s, enum msg type, size_t *at, size_t end,
                             struct item *item)
{
    const char *name = schemas[type].name;
    uint64_t tag;
    item->tag = *at;
    MPQC_TRY(read_varint(s, at, end, &tag));
    if (tag > UINT32_MAX || tag >> 3 == 0 || *at - item->tag > 5)
        return BAD(s, item->tag, "malformed: a field of %s has an impossible number", name);
    item->number = (uint32_t)(tag >> 3);
    item->wire = (enum wire)(tag & 7);
    item->payload = *at;
    uint64_t length = 0;
    switch ((unsigned)(tag & 7)) {
    case WIRE_VARINT:
        MPQC_TRY(read_varint(s, at, end, &item->value));
        length = *at - item->payload;
        break;
    case WIRE_64: length = 8; break;
    case WIRE_32: length = 4; break;
    case WIRE_BYTES:
        MPQC_TRY(read_varint(s, at, end, &length));
        if (*at - item->payload > 5 || length > MPQC_PB_MAX_LENGTH)
            return BAD(s, item->tag, "malformed: field %u of %s has the impossible length %llu",
                       item->number, name, (unsigned long long)length);
        item->payload = *at;
        break;
    default:
        return BAD(s, item->tag, "malformed: field %u of %s has the unknown wire type %u",
                   item->number, name, (unsigned)(tag & 7));
    }
    if (length > end - item->payload)
        return BAD(s, item->tag,
                   "truncated: field %u of %s has %llu bytes, but only %llu are left", item->number,
                   name, (unsigned long long)length, (unsigned long long)(end - item->payload));
    *at = item->end = item->payload + (size_t)length;
    return MPQC_OK;
}

static const struct field *find_field(enum msg type, uint32_t number)
{
    for (const struct field *f = schemas[type].field; f->number; f++)
        if (f->number == number) return f;
    return NULL;
}

/* A packed field: a whole number of elements. */
static mpqc_status check_packed(struct scan *s, enum msg type, const struct field *f,
                                const struct item *item)
{
    size_t length = item->end - item->payload;
    unsigned width = f->kind == FIXED32S ? 4 : f->kind == FIXED64S ? 8 : 1;
    if (length % width)
        return BAD(s, item->tag,
                   "malformed: packed field %u of %s has %zu bytes, not a multiple of %u",
                   item->number, schemas[type].name, length, width);
    if (f->kind != VARINTS) return MPQC_OK;
    for (size_t at = item->payload; at < item->end;) {
        uint64_t ignored;
        MPQC_TRY(read_varint(s, &at, item->end, &ignored));
    }
    return MPQC_OK;
}

/* Does the wire type fit what the schema says? */
static mpqc_status check_wire(struct scan *s, enum msg type, const struct field *f,
                              const struct item *item)
{
    static const enum wire plain[] = {
        [VARINT] = WIRE_VARINT, [FIXED32] = WIRE_32, [FIXED64] = WIRE_64, [BYTES] = WIRE_BYTES,
        [MESSAGE] = WIRE_BYTES, [VARINTS] = WIRE_VARINT, [FIXED32S] = WIRE_32,
        [FIXED64S] = WIRE_64};
    if (item->wire == plain[f->kind]) return MPQC_OK;
    if (f->kind >= VARINTS && item->wire == WIRE_BYTES) return check_packed(s, type, f, item);
    return BAD(s, item->tag, "malformed: field %u of %s has wire type %u where %u belongs",
               item->number, schemas[type].name, (unsigned)item->wire, (unsigned)plain[f->kind]);
}

static mpqc_status list_add(struct scan *s, struct mpqc_pb_list *l, const struct item *item)
{
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 16;
        struct mpqc_pb_span *at = MPQC_NEW_ARRAY(s->arena, struct mpqc_pb_span, cap);
        if (!at) return MPQC_OOM(s->cx);
        if (l->n) memcpy(at, l->at, l->n * sizeof(*at));
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n++] =
        (struct mpqc_pb_span){.offset = item->payload, .length = item->end - item->payload};
    return MPQC_OK;
}

/* Takes note of what the importer will want to find again.  Depth 0 is the model
 * (or the lone tensor), depth 1 its graph. */
static mpqc_status note(struct scan *s, enum msg type, unsigned depth, const struct item *item)
{
    struct mpqc_pb_index *x = s->index;
    if (s->tensor && depth == 0 && item->number == 9) {
        s->raws++;
        s->tensor->raw_tag = item->tag;
        s->tensor->raw = (struct mpqc_pb_span){item->payload, item->end - item->payload};
    }
    if (!x) return MPQC_OK;
    if (type == MODEL) {
        switch (item->number) {
        case 1: x->ir_version = (int64_t)item->value; break;
        case 7: x->has_graph = true; break;
        case 8: return list_add(s, &x->opsets, item);
        case 20: return list_add(s, &x->training, item);
        case 25: return list_add(s, &x->functions, item);
        default: break;
        }
    } else if (type == GRAPH && depth == 1) {
        switch (item->number) {
        case 1: return list_add(s, &x->nodes, item);
        case 2:
            x->graph_name = (struct mpqc_pb_span){item->payload, item->end - item->payload};
            break;
        case 5: return list_add(s, &x->initialisers, item);
        case 11: return list_add(s, &x->inputs, item);
        case 12: return list_add(s, &x->outputs, item);
        case 13: return list_add(s, &x->value_infos, item);
        case 15: return list_add(s, &x->sparse, item);
        default: break;
        }
    }
    return MPQC_OK;
}

/* `in_model` is true for the chain model -> graph, not for graphs of attributes or
 * of training information, which also lie at small depths. */
static mpqc_status scan_message(struct scan *s, enum msg type, size_t at, size_t end,
                                unsigned depth, bool in_model)
{
    if (depth >= MPQC_PB_MAX_DEPTH)
        return BAD(s, at, "messages are nested more than %d deep", MPQC_PB_MAX_DEPTH);
    uint32_t fields = 0;
    while (at < end) {
        struct item item;
        MPQC_TRY(read_item(s, type, &at, end, &item));
        if (++fields > MPQC_PB_MAX_MESSAGE_FIELDS || ++s->fields > MPQC_PB_MAX_FIELDS)
            return BAD(s, item.tag, "%s has too many fields", schemas[type].name);
        const struct field *f = find_field(type, item.number);
        if (!f) continue; /* of a newer schema */
        MPQC_TRY(check_wire(s, type, f, &item));
        if (in_model) MPQC_TRY(note(s, type, depth, &item));
        if (f->kind != MESSAGE) continue;
        bool inside = in_model && type == MODEL && item.number == 7;
        MPQC_TRY(scan_message(s, (enum msg)f->child, item.payload, item.end, depth + 1, inside));
    }
    return MPQC_OK;
}

mpqc_status mpqc_pb_scan_model(struct mpqc_cx *cx, const char *file, const uint8_t *data,
                               size_t size, struct mpqc_arena *arena, struct mpqc_pb_index *out)
{
    struct scan s = {.cx = cx, .file = file, .data = data, .arena = arena, .index = out};
    memset(out, 0, sizeof(*out));
    out->ir_version = -1;
    return scan_message(&s, MODEL, 0, size, 0, true);
}

mpqc_status mpqc_pb_scan_tensor(struct mpqc_cx *cx, const char *file, const uint8_t *data,
                                struct mpqc_pb_span span, struct mpqc_pb_tensor *out)
{
    struct scan s = {.cx = cx, .file = file, .data = data, .tensor = out};
    memset(out, 0, sizeof(*out));
    MPQC_TRY(scan_message(&s, TENSOR, span.offset, span.offset + span.length, 0, true));
    out->has_raw = s.raws == 1;
    return MPQC_OK;
}
