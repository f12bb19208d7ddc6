//! Many lines with the same words before each: what a command writes may come a gigabyte at a time, in lines of a byte.

use memchr::memchr_iter;

/// What is copied at once of a short head or line: with a length that the compiler knows, that is one instruction.
const WORD: usize = 16;

/// Short lines are put together here before they move on.
const BLOCK: usize = 4096;

/// Adds the lines of `text`, each of which has an end, with `head` before each.
pub(super) fn push(out: &mut Vec<u8>, head: &[u8], text: &[u8]) {
    let mut block = [0; BLOCK];
    let mut used = 0;
    let mut word = [0; WORD];
    let is_short_head = head.len() <= WORD;
    word.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
    let mut start = 0;
    for end in memchr_iter(b'\n', text) {
        let length = end + 1 - start;
        // Bytes behind a line are copied with it and then overwritten.
        match text[start..].first_chunk::<WORD>() {
            Some(line) if is_short_head && length <= WORD => {
                if used + 2 * WORD > BLOCK {
                    out.extend_from_slice(&block[..used]);
                    used = 0;
                }
                block[used..used + WORD].copy_from_slice(&word);
                used += head.len();
                block[used..used + WORD].copy_from_slice(line);
                used += length;
            }
            _ => {
                out.extend_from_slice(&block[..used]);
                used = 0;
                out.extend_from_slice(head);
                out.extend_from_slice(&text[start..=end]);
            }
        }
        start = end + 1;
    }
    out.extend_from_slice(&block[..used]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_head_whatever_the_lengths() {
        let heads = ["", "#1 0.001 ", "exactly 16 bytes", "#1234567 12345.6 "];
        for head in heads {
            for longest in [1, 2, 15, 16, 17, 100, 5_000] {
                let lines = (0..3_000).map(|line| (line * 7) % longest);
                let text: String = lines.map(|length| "x".repeat(length) + "\n").collect();
                let want: String = text
                    .split_inclusive('\n')
                    .flat_map(|line| [head, line])
                    .collect();
                let mut out = b"before".to_vec();
                push(&mut out, head.as_bytes(), text.as_bytes());
                assert!(
                    out == format!("before{want}").as_bytes(),
                    "{head} {longest}"
                );
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay() {
        let mut out = Vec::new();
        push(&mut out, b"#1 ", b"\xff\0\r\n\n\r\r\n");
        assert_eq!(out, b"#1 \xff\0\r\n#1 \n#1 \r\r\n");
        let before = out.clone();
        push(&mut out, b"#1 ", b"");
        assert_eq!(out, before);
    }
}
