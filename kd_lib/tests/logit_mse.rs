//! Logit MSE on three rows that can be computed by hand.

use kd_lib::objectives::{LogitMse, Objective, loss_of_logits};
use tch::Tensor;

#[test]
fn logit_mse_is_the_mean_squared_difference_of_the_logits() {
    let student =
        Tensor::from_slice2(&[[1.0, 0.0], [0.5, 0.5], [-1.0, 2.0]]).set_requires_grad(true);
    let teacher = Tensor::from_slice2(&[[2.0, 0.0], [0.5, -0.5], [-1.0, 2.0]]);
    let labels = Tensor::from_slice(&[0i64, 0, 1]);
    let objective = LogitMse {
        hard_weight: 0.0,
        soft_weight: 1.0,
    };
    let loss = loss_of_logits(&objective, &student, &labels, Some(&teacher)).unwrap();
    // Two of the six differences are 1, the others 0.
    assert!((loss.total.double_value(&[]) - 2.0 / 6.0).abs() < 1e-12);
    loss.total.backward();
    let expected = [-2.0 / 6.0, 0.0, 0.0, 2.0 / 6.0, 0.0, 0.0];
    let gradient = Vec::<f64>::try_from(student.grad().view(-1)).unwrap();
    assert!(
        gradient
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-12),
        "{gradient:?}"
    );
    assert!(
        LogitMse {
            hard_weight: 0.0,
            soft_weight: 0.0
        }
        .validate()
        .is_err()
    );
    let objective = LogitMse {
        hard_weight: 1.0,
        soft_weight: 1.0,
    };
    assert!(loss_of_logits(&objective, &student, &labels, None).is_err());
}
