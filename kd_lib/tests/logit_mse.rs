//! Logit MSE on three rows that can be followed on paper.

use kd_lib::strategies::Objective;
use tch::Tensor;

#[test]
fn logit_mse_is_the_mean_squared_distance_of_the_logits() {
    let student = Tensor::from_slice2(&[[1.0, 0.0], [0.5, 0.5], [-1.0, 2.0]]).set_requires_grad(true);
    let teacher = Tensor::from_slice2(&[[2.0, 0.0], [0.5, -0.5], [-1.0, 2.0]]);
    let labels = Tensor::from_slice(&[0i64, 0, 1]);
    let loss = Objective::LogitMse { hard: 0.0, soft: 1.0 }.loss(&student, &labels, Some(&teacher)).unwrap();
    // Two of the six differences are 1, the others 0.
    assert!((loss.total.double_value(&[]) - 2.0 / 6.0).abs() < 1e-12);
    loss.total.backward();
    let by_hand = [-2.0 / 6.0, 0.0, 0.0, 2.0 / 6.0, 0.0, 0.0];
    let gradient = Vec::<f64>::try_from(student.grad().view(-1)).unwrap();
    assert!(gradient.iter().zip(by_hand).all(|(a, b)| (a - b).abs() < 1e-12), "{gradient:?}");
    assert!(Objective::LogitMse { hard: 0.0, soft: 0.0 }.check().is_err());
    assert!(Objective::LogitMse { hard: 1.0, soft: 1.0 }.loss(&student, &labels, None).is_err());
}
