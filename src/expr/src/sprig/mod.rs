//! `sprig.*`: the functions of that library, as far as their outcome depends on their arguments alone.
//!
//! Functions that would give chance, secrets, or something of the machine are known by name and refuse.

mod arguments;
mod dates;
mod dicts;
mod lists;
mod numbers;
pub mod semver;
mod strings;
mod web;

use crate::evaluate::Machine;
use crate::value::Value;

/// Every function there is, refused ones included.
pub(crate) const NAMES: &[&str] = &[
    "hello",
    "ago",
    "date",
    "date_in_zone",
    "date_modify",
    "dateInZone",
    "dateModify",
    "duration",
    "durationRound",
    "htmlDate",
    "htmlDateInZone",
    "must_date_modify",
    "mustDateModify",
    "mustToDate",
    "now",
    "toDate",
    "unixEpoch",
    "abbrev",
    "abbrevboth",
    "trunc",
    "trim",
    "upper",
    "lower",
    "title",
    "untitle",
    "substr",
    "repeat",
    "trimall",
    "trimAll",
    "trimSuffix",
    "trimPrefix",
    "nospace",
    "initials",
    "randAlphaNum",
    "randAlpha",
    "randAscii",
    "randNumeric",
    "swapcase",
    "shuffle",
    "snakecase",
    "camelcase",
    "kebabcase",
    "wrap",
    "wrapWith",
    "contains",
    "hasPrefix",
    "hasSuffix",
    "quote",
    "squote",
    "cat",
    "indent",
    "nindent",
    "replace",
    "plural",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "adler32sum",
    "toString",
    "atoi",
    "int64",
    "int",
    "float64",
    "seq",
    "toDecimal",
    "split",
    "splitList",
    "splitn",
    "toStrings",
    "until",
    "untilStep",
    "add1",
    "add",
    "sub",
    "div",
    "mod",
    "mul",
    "randInt",
    "add1f",
    "addf",
    "subf",
    "divf",
    "mulf",
    "biggest",
    "max",
    "min",
    "maxf",
    "minf",
    "ceil",
    "floor",
    "round",
    "join",
    "sortAlpha",
    "default",
    "empty",
    "coalesce",
    "all",
    "any",
    "compact",
    "mustCompact",
    "fromJson",
    "toJson",
    "toPrettyJson",
    "toRawJson",
    "mustFromJson",
    "mustToJson",
    "mustToPrettyJson",
    "mustToRawJson",
    "ternary",
    "deepCopy",
    "mustDeepCopy",
    "typeOf",
    "typeIs",
    "typeIsLike",
    "kindOf",
    "kindIs",
    "deepEqual",
    "getHostByName",
    "base",
    "dir",
    "clean",
    "ext",
    "isAbs",
    "osBase",
    "osClean",
    "osDir",
    "osExt",
    "osIsAbs",
    "b64enc",
    "b64dec",
    "b32enc",
    "b32dec",
    "tuple",
    "list",
    "dict",
    "get",
    "set",
    "unset",
    "hasKey",
    "pluck",
    "keys",
    "pick",
    "omit",
    "merge",
    "mergeOverwrite",
    "mustMerge",
    "mustMergeOverwrite",
    "values",
    "append",
    "push",
    "mustAppend",
    "mustPush",
    "prepend",
    "mustPrepend",
    "first",
    "mustFirst",
    "rest",
    "mustRest",
    "last",
    "mustLast",
    "initial",
    "mustInitial",
    "reverse",
    "mustReverse",
    "uniq",
    "mustUniq",
    "without",
    "mustWithout",
    "has",
    "mustHas",
    "slice",
    "mustSlice",
    "concat",
    "dig",
    "chunk",
    "mustChunk",
    "bcrypt",
    "htpasswd",
    "genPrivateKey",
    "derivePassword",
    "buildCustomCert",
    "genCA",
    "genCAWithKey",
    "genSelfSignedCert",
    "genSelfSignedCertWithKey",
    "genSignedCert",
    "genSignedCertWithKey",
    "encryptAES",
    "decryptAES",
    "randBytes",
    "uuidv4",
    "semver",
    "semverCompare",
    "fail",
    "regexMatch",
    "mustRegexMatch",
    "regexFindAll",
    "mustRegexFindAll",
    "regexFind",
    "mustRegexFind",
    "regexReplaceAll",
    "mustRegexReplaceAll",
    "regexReplaceAllLiteral",
    "mustRegexReplaceAllLiteral",
    "regexSplit",
    "mustRegexSplit",
    "regexQuoteMeta",
    "urlParse",
    "urlJoin",
];

/// What is said of a name that is listed and not there.
const MISSING: &str = "is not there";

/// Why some functions are not there.
fn refusal(name: &str) -> Option<&'static str> {
    Some(match name {
        "randAlphaNum" | "randAlpha" | "randAscii" | "randNumeric" | "shuffle" | "randInt" | "randBytes"
        | "uuidv4" => "its outcome is left to chance; use the workflow's uid, or make the value in a step",
        "bcrypt"
        | "htpasswd"
        | "genPrivateKey"
        | "derivePassword"
        | "buildCustomCert"
        | "genCA"
        | "genCAWithKey"
        | "genSelfSignedCert"
        | "genSelfSignedCertWithKey"
        | "genSignedCert"
        | "genSignedCertWithKey"
        | "encryptAES"
        | "decryptAES" => "secrets are not made in expressions; make them in a step",
        "getHostByName" => "expressions don't reach the network",
        _ => return None,
    })
}

/// Calls `sprig.name`.
pub(crate) fn call(machine: &mut Machine<'_>, name: &str, arguments: &[Value]) -> Result<Value, String> {
    if let Some(reason) = refusal(name) {
        return Err(format!("sprig.{name} is not supported: {reason}"));
    }
    // `must` functions are the same here: an error is always an error.
    let plain = match name {
        "must_date_modify" => "date_modify".to_owned(),
        _ => match name.strip_prefix("must") {
            Some(rest) => format!("{}{}", rest[..1].to_lowercase(), &rest[1..]),
            None => name.to_owned(),
        },
    };
    let given = arguments::Arguments::new(&plain, arguments);
    for family in [strings::call, numbers::call, lists::call, dicts::call, dates::call, web::call] {
        if let Some(value) = family(machine, &given)? {
            return Ok(value);
        }
    }
    Err(format!("sprig.{name} {MISSING}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Env, Limits};

    #[test]
    fn every_name_is_there_or_refused() {
        let (env, limits) = (Env::default(), Limits::DEFAULT);
        for name in NAMES {
            let message = call(&mut Machine::new(&env, &limits, 0), name, &[]).err().unwrap_or_default();
            assert!(!message.contains(MISSING), "{name}");
        }
    }
}
