//! Chat templates that loop, grow or nest, and texts that are no templates, by name.

/// Returns the templates, each with its name.
pub fn hostile_templates() -> Vec<(&'static str, String)> {
    let text = |source: &str| source.to_owned();
    let forty = |step: &str| {
        format!(
            "{{% set ns = namespace(s='aaaa', l=[1]) %}}{}{{{{ ns.s }}}}",
            step.repeat(40)
        )
    };
    vec![
        ("empty", text("")),
        ("not-closed", text("{{ messages")),
        ("unknown-tag", text("{% fly %}")),
        (
            "raises",
            text("{{ raise_exception('this model does not chat') }}"),
        ),
        ("divides-by-zero", text("{{ 1 / 0 }}")),
        ("attribute-of-nothing", text("{{ nothing.at.all }}")),
        ("includes-itself", text("{% include 'chat' %}")),
        ("extends-itself", text("{% extends 'chat' %}")),
        ("imports-itself", text("{% import 'chat' as c %}{{ c }}")),
        ("includes-a-file", text("{% include '/etc/passwd' %}")),
        ("last-message-only", text("{{ messages[-1].content }}")),
        (
            "loops-in-loops",
            text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        ),
        (
            "range-2^62",
            text("{% for a in range(4611686018427387904) %}{% endfor %}"),
        ),
        (
            "range-times",
            text("{% for a in range(1000) * 100000 %}x{% endfor %}"),
        ),
        (
            "writes-for-ever",
            text("{% for a in range(9000) %}{{ 'x' * 1000 }}{% endfor %}"),
        ),
        (
            "writes-raw-for-ever",
            format!(
                "{{% for a in range(20000) %}}{}{{% endfor %}}",
                "x".repeat(9000)
            ),
        ),
        (
            "captures-raw",
            format!(
                "{{% set x %}}{{% for a in range(20000) %}}{}{{% endfor %}}{{% endset %}}",
                "x".repeat(9000)
            ),
        ),
        (
            "text-times-10^8",
            text("{% set x = 'a' * 100000000 %}{{ x | length }}"),
        ),
        ("text-times-2^62", text("{{ 'a' * 4611686018427387904 }}")),
        (
            "texts-of-10^8",
            text(
                "{% set ns = namespace(l=[]) %}{% for a in range(500) %}{% set ns.l = ns.l + ['a' * 100000000] %}{% endfor %}",
            ),
        ),
        (
            "list-times-10^8",
            text("{% set x = [1] * 100000000 %}{{ x | length }}"),
        ),
        ("doubles-text", forty("{% set ns.s = ns.s ~ ns.s %}")),
        (
            "doubles-text-by-plus",
            forty("{% set ns.s = ns.s + ns.s %}"),
        ),
        (
            "doubles-text-by-capture",
            forty("{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
        ),
        (
            "doubles-text-by-join",
            forty("{% set ns.s = [ns.s, ns.s] | join %}"),
        ),
        (
            "doubles-text-by-replace",
            forty("{% set ns.s = ns.s | replace('a', 'aa') %}"),
        ),
        (
            "doubles-text-by-method",
            forty("{% set ns.s = ns.s.replace('a', 'aa') %}"),
        ),
        (
            "doubles-text-by-format",
            forty("{% set ns.s = '%s%s' | format(ns.s, ns.s) %}"),
        ),
        (
            "doubles-text-by-macro",
            format!(
                "{{% macro m(s) %}}{{{{ s }}}}{{{{ s }}}}{{% endmacro %}}{}",
                forty("{% set ns.s = m(ns.s) %}")
            ),
        ),
        ("doubles-list", forty("{% set ns.l = ns.l + ns.l %}")),
        (
            "doubles-list-by-nesting",
            format!("{}{{{{ ns.l }}}}", forty("{% set ns.l = [ns.l, ns.l] %}")),
        ),
        (
            "doubles-list-in-a-loop",
            text(
                "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l }}",
            ),
        ),
        (
            "doubles-text-in-a-loop",
            text(
                "{% set ns = namespace(s='a') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
            ),
        ),
        (
            "replaces-nothing-by-much",
            text("{% set s = 'a' * 30000 %}{{ s | replace('', s) }}"),
        ),
        (
            "joins-with-much",
            text("{% set s = 'a' * 30000 %}{{ range(30000) | join(s) }}"),
        ),
        (
            "indents-by-10^9",
            text("{{ 'a\nb' | indent(1000000000, true, true) }}"),
        ),
        (
            "format-width-10^9",
            text("{{ '%1000000000d' | format(1) }}"),
        ),
        (
            "format-width-argument",
            text("{{ '%*d' | format(1000000000, 1) }}"),
        ),
        (
            "format-method-width-10^9",
            text("{{ '{:>1000000000}'.format('a') }}"),
        ),
        (
            "format-precision-10^9",
            text("{{ '%.1000000000f' | format(1.5) }}"),
        ),
        (
            "pads-to-10^9",
            text(
                "{{ 'a'.ljust(1000000000) }}{{ 'a'.zfill(1000000000) }}{{ 'a'.center(1000000000) }}",
            ),
        ),
        (
            "batches-of-10^9",
            text("{{ [1] | batch(1000000000, 'x') | list }}"),
        ),
        (
            "slices-of-10^9",
            text("{{ [1] | slice(1000000000) | list }}"),
        ),
        (
            "list-nested-30000-deep",
            text(
                "{% set ns = namespace(l=[]) %}{% for a in range(30000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
            ),
        ),
        (
            "map-nested-30000-deep",
            text(
                "{% set ns = namespace(l={}) %}{% for a in range(30000) %}{% set ns.l = {'a': ns.l} %}{% endfor %}{{ ns.l }}",
            ),
        ),
        (
            "namespace-in-itself",
            text("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}"),
        ),
        (
            "namespaces-in-each-other",
            text(
                "{% set a = namespace() %}{% set b = namespace(x=a) %}{% set a.x = b %}{{ a == b }}",
            ),
        ),
        (
            "namespace-in-a-list-in-itself",
            text("{% set ns = namespace() %}{% set l = [ns] %}{% set ns.a = l %}{{ l }}"),
        ),
        (
            "macro-calls-itself",
            text("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}"),
        ),
        (
            "macros-call-each-other-twice",
            text(
                "{% macro m(n) %}{% if n < 90 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
            ),
        ),
        (
            "loop-calls-itself",
            text("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
        ),
        (
            "brackets-100000-deep",
            format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)),
        ),
        (
            "lists-10000-deep",
            format!("{{{{ {}{} }}}}", "[".repeat(10_000), "]".repeat(10_000)),
        ),
        (
            "minus-100000-times",
            format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        ),
        (
            "not-20000-times",
            format!("{{{{ {}1 }}}}", "not ".repeat(20_000)),
        ),
        (
            "ifs-10000-deep",
            format!(
                "{}{}",
                "{% if 1 %}".repeat(6_000),
                "{% endif %}".repeat(5_000)
            ),
        ),
        (
            "elifs-9000",
            format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(9000)),
        ),
        (
            "elses-3000-deep",
            "{% if 0 %}{% else %}".repeat(3000) + &"{% endif %}".repeat(3000),
        ),
        (
            "filter-blocks-2000-deep",
            "{% filter trim %}".repeat(2000) + &"{% endfilter %}".repeat(2000),
        ),
        (
            "namespace-by-another-name",
            text("{% set f = namespace %}{% set ns = f() %}{% set ns.a = ns %}{{ ns }}"),
        ),
        (
            "plus-30000-times",
            format!("{{{{ 1{} }}}}", " + 1".repeat(30_000)),
        ),
        (
            "filters-20000-times",
            format!("{{{{ 'a'{} }}}}", "|trim".repeat(20_000)),
        ),
        (
            "attributes-40000-times",
            format!("{{{{ a{} }}}}", ".b".repeat(40_000)),
        ),
        ("a-million-bytes", "x".repeat(1 << 20)),
        ("power-tower", text("{{ 9 ** 9 ** 9 ** 9 }}")),
        ("splat", text("{{ 'a'.join(*[['b']]) }}")),
        ("not-utf8-escape", text("{{ '\\ud800' }}{{ '\\xff' }}")),
        ("nul", text("\0{{ messages[0].content }}\0")),
    ]
}
