//! What is a client told whose request does not pass?

/// A problem as in RFC 9457, but for the id of the request, which comes last.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    opening: Vec<u8>,
}

impl Problem {
    pub(crate) fn new(status: u16, title: &str, detail: &str) -> Self {
        let mut opening = br#"{"type":"about:blank","title":"#.to_vec();
        push_string(&mut opening, title);
        opening.extend_from_slice(format!(r#","status":{status},"detail":"#).as_bytes());
        push_string(&mut opening, detail);
        opening.extend_from_slice(br#","request-id":"#);
        Self { status, opening }
    }

    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.opening.len() + request_id.len() + r#"""}"#.len());
        body.extend_from_slice(&self.opening);
        push_string(&mut body, request_id);
        body.push(b'}');
        body
    }
}

fn push_string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("any string can be written as JSON, and memory takes it");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Problem;

    #[test]
    fn a_problem_is_json_whatever_the_id_of_the_request() {
        let problem = Problem::new(401, "Unauthorized", "no \"key\"");
        for id in ["", "01J", "\"},\\\u{7}\u{e9}"] {
            let body: Value = serde_json::from_slice(&problem.body(id)).expect("is JSON");
            assert_eq!(
                body,
                json!({
                    "type": "about:blank",
                    "title": "Unauthorized",
                    "status": 401,
                    "detail": "no \"key\"",
                    "request-id": id,
                })
            );
        }
    }
}
