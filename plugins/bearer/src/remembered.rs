//! Which tokens have been checked before?

use std::collections::HashMap;

use crate::Claims;

/// Tokens whose signatures were right, with their claims. A bounded number: when they are too many, all are forgotten,
/// which costs less than to know which was used last, and each is checked again just once.
#[derive(Debug, Default)]
pub struct Remembered(HashMap<String, Claims>);

impl Remembered {
    const MOST: usize = 1_024;

    pub fn get(&self, token: &str) -> Option<&Claims> {
        self.0.get(token)
    }

    /// Forgets all, since the keys are others.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn put(&mut self, token: String, claims: Claims) {
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(token, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut remembered = Remembered::default();
        for number in 0..5_000 {
            remembered.put(number.to_string(), Claims::new());
            assert!(remembered.0.len() <= Remembered::MOST);
        }
        assert!(remembered.get("4999").is_some());
    }
}
