//! The order of modules, as the docs of a crate state it.

/// The rows of the section whose heading starts with `# Modules`: one row a bullet, which opens
/// with the modules' names in backticks (as links, or not where a module is private), a colon after
/// the last.
///
/// # Errors
/// If there is no such section, or a bullet of it does not open with names.
pub fn rows(library: &str) -> Result<Vec<Vec<String>>, String> {
    let docs = library
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(str::trim);
    let mut section = docs
        .skip_while(|line| !line.starts_with("# Modules"))
        .skip(1)
        .peekable();
    if section.peek().is_none() {
        return Err("no section `# Modules` in the docs".to_owned());
    }
    let mut bullets: Vec<String> = Vec::new();
    for line in section.take_while(|line| !line.starts_with("# ")) {
        if let Some(bullet) = line.strip_prefix("- ") {
            bullets.push(bullet.to_owned());
        } else if line.is_empty() {
            // The text of a bullet ends here.
            bullets.push(String::new());
        } else if let Some(bullet) = bullets.last_mut().filter(|bullet| !bullet.is_empty()) {
            bullet.push(' ');
            bullet.push_str(line);
        }
    }
    bullets
        .iter()
        .filter(|bullet| !bullet.is_empty())
        .map(|bullet| names(bullet))
        .collect()
}

fn names(bullet: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`- {bullet}` does not open with names of modules and a colon");
    let (names, _) = bullet.split_once(':').ok_or_else(wrong)?;
    names
        .split(',')
        .map(|name| {
            let name = name.trim();
            let name = name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .unwrap_or(name);
            let name = name
                .strip_prefix('`')
                .and_then(|name| name.strip_suffix('`'));
            name.map(str::to_owned).ok_or_else(wrong)
        })
        .collect()
}
