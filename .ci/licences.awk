# Reads deny.toml, then lines of `cargo tree --format '{p}|{l}'`. Fails on a crate whose licence expression needs a
# licence that deny.toml does not allow. `OR` and the old `/` need one side, `AND` needs both; AND binds closer.

FNR == NR {
    if (/^allow = \[/) listing = 1
    else if (/^\]/) listing = 0
    else if (listing && split($0, part, "\"") == 3) allowed[part[2]] = 1
    next
}

{
    sub(/ \(\*\)$/, "")
    if ($0 == "" || $0 in seen) next
    seen[$0] = 1
    split($0, field, "|")
    count++
    if (!holds(field[2])) {
        printf "not allowed by deny.toml: %s: %s\n", field[1], field[2] == "" ? "no licence" : field[2]
        bad = 1
    }
}

END {
    if (count < 50) { print "only " count + 0 " crates were looked at"; exit 1 }
    if (!bad) print count " crates, each under an allowed licence"
    exit bad
}

# Resolves parentheses innermost first, each to a word that is allowed or is not.
function holds(expression,    inner, verdict) {
    gsub(/ *\/ */, " OR ", expression)
    while (match(expression, /\([^()]*\)/)) {
        inner = substr(expression, RSTART + 1, RLENGTH - 2)
        verdict = any(inner) ? "(yes)" : "(no)"
        gsub(/[()]/, "@", verdict)
        expression = substr(expression, 1, RSTART - 1) verdict substr(expression, RSTART + RLENGTH)
    }
    return any(expression)
}

function any(expression,    sides, n, i) {
    n = split(expression, sides, " OR ")
    for (i = 1; i <= n; i++) if (all(sides[i])) return 1
    return 0
}

function all(expression,    sides, n, i) {
    n = split(expression, sides, " AND ")
    for (i = 1; i <= n; i++) if (sides[i] != "@yes@" && !(sides[i] in allowed)) return 0
    return n > 0
}
