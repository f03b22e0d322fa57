//! The functions there are.

/// Built-in functions that take a predicate, and the shape of their arguments: `e` expression, `p` predicate, capital
/// when it may be left out.
pub(crate) const PREDICATES: [(&str, &str); 15] = [
    ("all", "ep"),
    ("none", "ep"),
    ("any", "ep"),
    ("one", "ep"),
    ("filter", "ep"),
    ("map", "ep"),
    ("count", "eP"),
    ("sum", "eP"),
    ("find", "ep"),
    ("findIndex", "ep"),
    ("findLast", "ep"),
    ("findLastIndex", "ep"),
    ("groupBy", "ep"),
    ("sortBy", "epE"),
    ("reduce", "epE"),
];

/// What a built-in takes and gives. A letter per argument: `a` anything, `s` text, `i` whole number, `n` number, `l`
/// list, `m` map (`k` one with keys of any type), `x` list or anything that has a length; capital when it may be left out, `*` any number of them.
pub(crate) struct Signature {
    pub(crate) name: &'static str,
    pub(crate) takes: &'static str,
    pub(crate) gives: char,
    /// Its messages count arguments; those of others only say too many or too few.
    pub(crate) counts: bool,
}

const fn plain(name: &'static str, takes: &'static str, gives: char) -> Signature {
    Signature { name, takes, gives, counts: false }
}

const fn counted(name: &'static str, takes: &'static str, gives: char) -> Signature {
    Signature { name, takes, gives, counts: true }
}

pub(crate) const BUILTINS: [Signature; 56] = [
    counted("len", "x", 'i'),
    plain("type", "a", 's'),
    counted("abs", "n", 'a'),
    counted("ceil", "n", 'f'),
    counted("floor", "n", 'f'),
    counted("round", "n", 'f'),
    counted("int", "v", 'i'),
    counted("float", "v", 'f'),
    plain("string", "a", 's'),
    plain("trim", "sS", 's'),
    plain("trimPrefix", "sS", 's'),
    plain("trimSuffix", "sS", 's'),
    plain("upper", "s", 's'),
    plain("lower", "s", 's'),
    plain("split", "ssI", 'l'),
    plain("splitAfter", "ssI", 'l'),
    plain("replace", "sssI", 's'),
    plain("repeat", "si", 's'),
    plain("join", "lS", 's'),
    plain("indexOf", "ss", 'i'),
    plain("lastIndexOf", "ss", 'i'),
    plain("hasPrefix", "ss", 'b'),
    plain("hasSuffix", "ss", 'b'),
    plain("max", "a*", 'a'),
    plain("min", "a*", 'a'),
    plain("mean", "a*", 'f'),
    plain("median", "a*", 'f'),
    plain("toJSON", "a", 's'),
    plain("fromJSON", "s", 'a'),
    plain("toBase64", "s", 's'),
    plain("fromBase64", "s", 's'),
    counted("now", "A", 't'),
    plain("duration", "s", 'd'),
    counted("date", "aAAA", 't'),
    plain("timezone", "s", 'z'),
    counted("first", "l", 'a'),
    counted("last", "l", 'a'),
    counted("get", "aa", 'a'),
    counted("take", "li", 'l'),
    counted("keys", "m", 'l'),
    counted("values", "m", 'l'),
    counted("toPairs", "m", 'l'),
    counted("fromPairs", "l", 'k'),
    counted("reverse", "l", 'l'),
    counted("uniq", "l", 'l'),
    counted("concat", "l*", 'l'),
    counted("flatten", "l", 'l'),
    plain("sort", "lS", 'l'),
    plain("bitand", "ii", 'i'),
    plain("bitor", "ii", 'i'),
    plain("bitxor", "ii", 'i'),
    plain("bitnand", "ii", 'i'),
    plain("bitshl", "ii", 'i'),
    plain("bitshr", "ii", 'i'),
    plain("bitushr", "ii", 'i'),
    plain("bitnot", "i", 'i'),
];

/// Functions that Argo adds.
const FUNCTIONS: [&str; 4] = ["asInt", "asFloat", "toJson", "jsonpath"];

/// The built-in function of that name, those with predicates not among them.
pub(crate) fn builtin(name: &str) -> Option<&'static str> {
    signature(name).map(|signature| signature.name)
}

pub(crate) fn signature(name: &str) -> Option<&'static Signature> {
    BUILTINS.iter().find(|signature| signature.name == name)
}

/// True for a name that is a function without being built into the language.
pub(crate) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

pub(crate) fn is_sprig(name: &str) -> bool {
    crate::sprig::NAMES.contains(&name)
}
