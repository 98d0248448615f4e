//! Chat templates by name, for files that bring none, or a wrong one.
//!
//! Each frames messages as the makers of a family of models publish it.

use super::CHATML;

/// Names and sources, in order of name.
const TEMPLATES: [(&str, &str); 10] = [
    ("alpaca", ALPACA),
    ("chatml", CHATML),
    ("gemma", GEMMA),
    ("llama2", LLAMA2),
    ("llama3", LLAMA3),
    ("mistral", MISTRAL),
    ("phi3", PHI3),
    ("tulu", TULU),
    ("vicuna", VICUNA),
    ("zephyr", ZEPHYR),
];

/// Stanford Alpaca's prompt, with a system prompt in place of its opening sentence.
const ALPACA: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n{% else %}### Response:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}";

/// Gemma has no role for a system prompt: it opens the first message.
const GEMMA: &str = "{{ bos_token }}{% for m in messages %}{% if m.role != 'system' %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n{{ m.content | trim }}<end_of_turn>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";

const LLAMA2: &str = "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' + m.content | trim + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}{{ bos_token }}[INST] {{ ns.system }}{{ m.content | trim }} [/INST]{% set ns.system = '' %}{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}";

const LLAMA3: &str = "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

/// Mistral's instruct models up to version 3; a system prompt opens the first message.
const MISTRAL: &str = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}";

const PHI3: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

/// Tulu, and OLMo 2.
const TULU: &str = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

/// Vicuna, version 1.1 and later.
const VICUNA: &str = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}{% elif m.role == 'user' %}USER: {{ m.content + ' ' }}{% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}";

/// Zephyr, and TinyLlama.
const ZEPHYR: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

/// The source of the template of that name; neither case nor hyphens matter.
pub fn find(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', '.', ' '], "");
    let wanted = plain(name);
    let found = TEMPLATES.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, source)| *source)
}

/// The names, for a sentence.
pub fn names() -> String {
    TEMPLATES.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::Template;
    use super::*;

    /// Two exchanges, written message by message as a chat does.
    fn conversation(name: &str, system: Option<&str>) -> String {
        let template = Template::new(find(name).unwrap(), "<s>", "</s>").unwrap();
        let mut text = template.prefix(system).unwrap().text;
        for (first, question, answer) in [(true, "Q1", "A1"), (false, "Q2", "A2")] {
            text += &template.question(system, first, question).unwrap().text;
            text += &template.open(system).unwrap();
            text += answer;
            text += &template.close(system).unwrap();
        }
        text
    }

    #[test]
    fn conversations_are_framed_as_published() {
        for (name, expected) in [
            (
                "alpaca",
                "S\n\n### Instruction:\nQ1\n\n### Response:\nA1</s>\n\n### Instruction:\nQ2\n\n### Response:\nA2</s>\n\n",
            ),
            (
                "ChatML",
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n",
            ),
            (
                "gemma",
                "<s><start_of_turn>user\nS\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\nA2<end_of_turn>\n",
            ),
            (
                "llama-2",
                "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST]A1 </s><s>[INST] Q2 [/INST]A2 </s>",
            ),
            (
                "Llama-3",
                "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA2<|eot_id|>",
            ),
            (
                "mistral",
                "<s>[INST] S\n\nQ1 [/INST]A1</s>[INST] Q2 [/INST]A2</s>",
            ),
            (
                "phi-3",
                "<|system|>\nS<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nQ2<|end|>\n<|assistant|>\nA2<|end|>\n",
            ),
            (
                "tulu",
                "<s><|system|>\nS\n<|user|>\nQ1\n<|assistant|>\nA1</s>\n<|user|>\nQ2\n<|assistant|>\nA2</s>\n",
            ),
            (
                "vicuna",
                "<s>S USER: Q1 ASSISTANT:A1</s>USER: Q2 ASSISTANT:A2</s>",
            ),
            (
                "zephyr",
                "<|system|>\nS</s>\n<|user|>\nQ1</s>\n<|assistant|>\nA1</s>\n<|user|>\nQ2</s>\n<|assistant|>\nA2</s>\n",
            ),
        ] {
            assert_eq!(conversation(name, Some("S")), expected, "{name}");
            let without = conversation(name, None);
            assert!(
                without.ends_with(expected.split_once("Q1").unwrap().1),
                "{name}"
            );
        }
    }

    #[test]
    fn every_name_is_found_and_in_order() {
        assert!(TEMPLATES.is_sorted_by_key(|(name, _)| *name));
        assert!(
            TEMPLATES
                .iter()
                .all(|(name, source)| find(name) == Some(*source))
        );
        assert_eq!((find("fly"), find("")), (None, None));
    }
}
